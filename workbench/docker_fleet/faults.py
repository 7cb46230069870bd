"""What happens to a fleet on request: faults as a sentence says them, and the commands that begin and end one. Pure."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from fleet_protocol.errors import ConfigurationError
from workbench.docker_fleet.names import FLEET_NETWORK, FleetNames

FORM = "ACTION NAME after N s [for N s], such as: pause kitchen-3 after 20 s for 15 s"
MAX_NAMED = 12
"""Of what there is, in an error."""
BALLAST = "ballast"
"""The file that fills a device's disk."""

_SENTENCE = re.compile(
    r"(?P<action>\S+)\s+(?P<target>\S+)\s+after\s+(?P<after>\d+(\.\d+)?)\s*s(\s+for\s+(?P<lasts>\d+(\.\d+)?)\s*s)?"
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; `lasts_seconds` is None where it lasts until the run ends."""

    action: str
    target: str
    after_seconds: float
    lasts_seconds: float | None

    @property
    def end_seconds(self) -> float | None:
        """After the start of the run; None: never."""
        return None if self.lasts_seconds is None else self.after_seconds + self.lasts_seconds


Arguments = list[str]
Command = Callable[[FleetNames, str], Arguments]


@dataclass(frozen=True, slots=True)
class Action:
    """A kind of fault: arguments of `docker` that begin and end it, and what is said then."""

    begun: str
    ended: str
    begin: Command
    end: Command
    new_link: bool = False
    """The container's interface is another one afterwards."""
    devices_alone: bool = False


ACTIONS: Mapping[str, Action] = {
    "stop": Action(
        "is shut down",
        "is started again",
        lambda names, target: ["stop", names.container(target)],
        lambda names, target: ["start", names.container(target)],
        new_link=True,
    ),
    "pause": Action(
        "stands still",
        "goes on",
        lambda names, target: ["pause", names.container(target)],
        lambda names, target: ["unpause", names.container(target)],
    ),
    "kill": Action(
        "is killed",
        "is started again",
        lambda names, target: ["kill", "--signal", "KILL", names.container(target)],
        lambda names, target: ["start", names.container(target)],
        new_link=True,
    ),
    "cut": Action(
        "is cut off from the network",
        "is back on the network",
        lambda names, target: ["network", "disconnect", names.network(FLEET_NETWORK), names.container(target)],
        lambda names, target: [
            *("network", "connect", "--alias", target),
            *(names.network(FLEET_NETWORK), names.container(target)),
        ],
        new_link=True,
    ),
    "fill": Action(
        "has a full disk",
        "has room on its disk again",
        lambda names, target: [
            *("exec", names.disks, "sh", "-c", 'cat /dev/zero > "$1" 2>/dev/null || true', "fill"),
            names.disk_path(target, BALLAST),
        ],
        lambda names, target: ["exec", names.disks, "rm", "-f", names.disk_path(target, BALLAST)],
        devices_alone=True,
    ),
}


def read_faults(
    sentences: Sequence[str], devices: Sequence[str], services: Sequence[str], longest_seconds: float
) -> list[Fault]:
    """The faults that `sentences` ask for, in the order in which they begin.

    Raises:
        ConfigurationError: naming the sentence and what to write: it has another form, names an unknown action or
            target, comes after the run, or two of one target overlap.
    """
    faults = [_read(sentence, devices, services, longest_seconds) for sentence in sentences]
    for one, other in combinations(sorted(faults, key=lambda fault: fault.after_seconds), 2):
        if one.target == other.target and (one.end_seconds is None or other.after_seconds <= one.end_seconds):
            until = "the run ends" if one.end_seconds is None else f"{one.end_seconds:g} s"
            raise ConfigurationError(
                f"fault: {one.target} has one until {until}, and another after {other.after_seconds:g} s; begin the"
                " second later, or give the first an earlier end"
            )
    return sorted(faults, key=lambda fault: fault.after_seconds)


def not_waited_for(faults: Sequence[Fault], seconds: float) -> frozenset[str]:
    """Those whose fault has begun, `seconds` after the start of the run, and has no end."""
    return frozenset(fault.target for fault in faults if fault.lasts_seconds is None and fault.after_seconds <= seconds)


def _read(sentence: str, devices: Sequence[str], services: Sequence[str], longest_seconds: float) -> Fault:
    found = _SENTENCE.fullmatch(sentence.strip())
    if found is None:
        raise ConfigurationError(f"fault {sentence!r}: write {FORM}")
    lasts = found["lasts"]
    fault = Fault(found["action"], found["target"], float(found["after"]), float(lasts) if lasts else None)
    for problem in _problems(fault, devices, services, longest_seconds):
        raise ConfigurationError(f"fault {sentence!r}: {problem}")
    return fault


def _problems(fault: Fault, devices: Sequence[str], services: Sequence[str], longest_seconds: float) -> Iterator[str]:
    if fault.action not in ACTIONS:
        yield f"no fault {fault.action!r}; there are {', '.join(ACTIONS)}"
        return
    if fault.target in services and ACTIONS[fault.action].devices_alone:
        yield f"{fault.action} is for devices alone"
    elif fault.target not in {*devices, *services}:
        yield f"nothing is called {fault.target!r}; there are {_some((*devices, *services))}"
    end = fault.after_seconds if fault.end_seconds is None else fault.end_seconds
    if end >= longest_seconds:
        longest = f"the run after {longest_seconds:g} s at most"
        yield f"it ends after {end:g} s, and {longest}; raise [docker] longest_seconds"


def _some(names: Sequence[str]) -> str:
    """All of few names; of many, the first and the last ones."""
    if len(names) <= MAX_NAMED:
        return ", ".join(names)
    half = MAX_NAMED // 2
    return f"{', '.join(names[:half])} ... {', '.join(names[-half:])}, {len(names)} in all"
