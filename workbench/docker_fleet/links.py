"""A device's link as `tc` makes it: rate and latency of its profile, as far as the kernel can. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edge_agent.profiles import Profile

INTERFACE = "INTERFACE"
"""In a line of tc; a container that was away from the network comes back with another one."""
OF_FLEET, OF_PROBE = "eth", "lo"
"""How interfaces begin: that of a device, and one that every container has, to try what the kernel can do."""
BATCH = """link=$(ls /sys/class/net | grep "^$1" | head -n 1) && sed "s/INTERFACE/$link/" | tc -batch -"""
"""For a shell: tc runs the lines of its standard input for the interface that begins as its argument says."""
QUEUE_MILLISECONDS = 400
"""So long a packet may wait for its turn before it is dropped."""
BURST_KIB = 64
"""Of a rate: one large packet of a network card that joins small ones."""


@dataclass(frozen=True, slots=True)
class Link:
    """Rates in 1,000 bits a second, latency in milliseconds, one way."""

    uplink_kbit_s: float
    downlink_kbit_s: float
    latency_ms: float


@dataclass(frozen=True, slots=True)
class LinkSupport:
    """What the kernel can do to a link."""

    latency: bool
    uplink: bool
    downlink: bool


def link_of(profile: Profile) -> Link:
    """What a profile says of a device's link."""
    simulated = profile.simulation
    return Link(simulated.uplink_kbit_s, simulated.downlink_kbit_s, simulated.latency_ms)


def delayed(link: Link) -> str:
    """A line of tc: the uplink's rate, and the latency of both directions, which then is on the way up."""
    return f"qdisc replace dev {INTERFACE} root netem delay {2 * link.latency_ms:g}ms rate {_bits(link.uplink_kbit_s)}"


def rated(link: Link) -> str:
    """A line of tc: the uplink's rate alone."""
    return (
        f"qdisc replace dev {INTERFACE} root tbf rate {_bits(link.uplink_kbit_s)} burst {BURST_KIB}kb"
        f" latency {QUEUE_MILLISECONDS}ms"
    )


def policed(link: Link) -> list[str]:
    """Lines of tc: what comes down faster than the downlink's rate is dropped, and sent again by TCP."""
    return [
        f"qdisc replace dev {INTERFACE} handle ffff: ingress",
        f"filter replace dev {INTERFACE} parent ffff: protocol all prio 1 handle 800::800 u32 match u32 0 0"
        f" police rate {_bits(link.downlink_kbit_s)} burst {BURST_KIB}kb drop flowid :1",
    ]


def link_lines(link: Link, support: LinkSupport) -> list[str]:
    """Lines of `tc -batch` for all that the kernel can do."""
    up = [delayed(link)] if support.latency else [rated(link)] if support.uplink else []
    return up + (policed(link) if support.downlink else [])


def probes(link: Link) -> dict[str, Sequence[str]]:
    """What to try for each field of `LinkSupport`."""
    return {
        "latency": [delayed(link)],
        "uplink": [rated(link)],
        "downlink": policed(link),
    }


def lacking(support: LinkSupport) -> Iterator[str]:
    """What the kernel can't do, in words."""
    if not support.latency:
        yield "links have no latency: this kernel has no netem (sudo modprobe sch_netem)"
    if not (support.latency or support.uplink):
        yield "links up have no rate: this kernel has no tbf (sudo modprobe sch_tbf)"
    if not support.downlink:
        yield "links down have no rate: this kernel can't police them (sudo modprobe -a sch_ingress cls_u32 act_police)"


def _bits(kbit_s: float) -> str:
    return f"{max(1, round(1000 * kbit_s))}bit"
