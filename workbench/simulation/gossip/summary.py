"""What a simulation without a coordinator gives, as a table, and what its figures mean."""

from collections.abc import Iterator

import msgspec
from rich.console import Console
from rich.table import Table

from fleet_protocol.gossip_plan import MixingRule, TopologyName
from fleet_protocol.remedies import STEADIER_TRAINING
from workbench.report.labels import bytes_label, percent_label
from workbench.simulation.ledger import Count
from workbench.simulation.verdict import why_no_round


class GossipPoint(msgspec.Struct, frozen=True):
    """The fleet at one moment. Bytes are of signed messages; what is published once for several neighbours goes up once
    and down to each.

    `score` is that of the mean of all devices' models, which no device has, `worst` the lowest of a device.
    `consensus_distance`: of a device's model from that mean, root mean square over devices; `way` is how far the mean
    has come from the weights that all began with.
    """

    virtual_seconds: float
    rounds: int
    bytes_up: int
    bytes_down: int
    score: float
    worst: float
    consensus_distance: float
    way: float


class GossipSummary(msgspec.Struct, frozen=True):
    """A whole simulation; `first` and `last` points of it, and the first one with the score `target`.

    `bytes_up` and `bytes_down` are by what was sent: how a model changed, `whole copy` of one, `request` for one.
    `missed` messages came to devices that were off. `refused` counts what neighbours sent that was refused, by reason.
    `rounds_withheld` trained nothing (`spent`, `worse`) or told nothing (`unchanged`); all of them mixed.
    The others are as of `Summary`.
    """

    devices: int
    topology: TopologyName
    rule: MixingRule
    seed: int
    virtual_seconds: float
    measure: str
    first: GossipPoint
    last: GossipPoint
    target: float | None
    reached: GossipPoint | None
    one_answer: float | None
    bytes_up: dict[str, int]
    bytes_down: dict[str, int]
    missed: int
    refused: dict[str, Count]
    crashes: int
    rounds_lost: int
    rounds_diverged: Count
    rounds_withheld: dict[str, int]
    guard_refusals: dict[str, int]
    devices_short_of_samples: int


def print_gossip(summary: GossipSummary, console: Console, wall_seconds: float) -> None:
    """A table of what matters, and what the user may want to change."""
    title = f"{summary.devices} devices, {summary.topology}, {summary.rule}, no coordinator, seed {summary.seed}"
    table = Table(title=title, show_header=False)
    for row in _rows(summary):
        table.add_row(*row)
    table.add_row("simulated in", f"{wall_seconds:.1f} s")
    console.print(table)
    for remark in _remarks(summary):
        console.print(f"- {remark}", highlight=False, markup=False, soft_wrap=True)


def why_worthless(summary: GossipSummary) -> str | None:
    """Why the result is worth nothing; None where the fleet has learned."""
    first, last = summary.first, summary.last
    if not last.rounds:
        return f"nothing was learned: no device has ended a round{why_no_round(summary)}"
    if not last.score > first.score:
        return (
            f"nothing was learned: {summary.measure} of the mean model is {last.score:.4f}, and was {first.score:.4f};"
            f" run longer (--hours); {STEADIER_TRAINING}"
        )
    return None


def _rows(summary: GossipSummary) -> Iterator[tuple[str, str]]:
    first, last = summary.first, summary.last
    yield "virtual time", f"{summary.virtual_seconds / 3600:.2f} h"
    yield "rounds of devices", f"{last.rounds:,}"
    yield f"{summary.measure}, mean model", f"{last.score:.4f}, at first {first.score:.4f}"
    yield f"{summary.measure}, worst device", f"{last.worst:.4f}"
    share = f", {percent_label(last.consensus_distance / last.way)} of the way" if last.way else ""
    yield "consensus distance", f"{last.consensus_distance:.4g}{share}"
    if summary.target is not None:
        yield f"{summary.target:g} reached", _reached(summary.reached)
    for name, sizes in (("sent up", summary.bytes_up), ("sent down", summary.bytes_down)):
        parts = ", ".join(f"{kind} {bytes_label(size)}" for kind, size in sizes.items())
        yield name, f"{bytes_label(sum(sizes.values()))} ({parts})" if parts else "nothing"
    yield (
        "mishaps",
        f"{summary.crashes:,} crashes, {summary.rounds_lost:,} rounds lost to them,"
        f" {summary.rounds_diverged.times:,} diverged; {summary.missed:,} messages missed,"
        f" {sum(count.times for count in summary.refused.values()):,} refused",
    )


def _reached(point: GossipPoint | None) -> str:
    if point is None:
        return "not in this time"
    return f"after {point.virtual_seconds / 3600:.2f} h and {point.rounds:,} rounds, {bytes_label(point.bytes_up)} up"


def _remarks(summary: GossipSummary) -> Iterator[str]:
    for reason, refused in sorted(summary.refused.items(), key=lambda item: -item[1].times):
        yield f"{refused.times:,} refused as {reason}, the first: {refused.words}"
    if diverged := summary.rounds_diverged:
        yield f"{diverged.times:,} rounds diverged, the first: {diverged.words}"
    if spent := summary.rounds_withheld.get("spent"):
        yield (
            f"{spent:,} times a device had enough of its samples (`maximum_epochs` of task.toml): it trained nothing,"
            " and exchanged as after any round"
        )
    if worse := summary.rounds_withheld.get("worse"):
        yield (
            f"{worse:,} rounds made the device's validation samples worse, and were undone; the devices"
            " exchanged as after any round"
        )
    if unchanged := summary.rounds_withheld.get("unchanged"):
        yield f"{unchanged:,} rounds told nothing, as the model had moved too little (`sending` of task.toml)"
    for words, times in sorted(summary.guard_refusals.items(), key=lambda item: -item[1]):
        yield f"deferred by a guard {times:,} times: {words}"
    last, one_answer = summary.last, summary.one_answer
    if one_answer is not None and not last.worst > one_answer:
        yield (
            f"the worst device's {summary.measure} is {last.worst:.4f}, and one answer to all samples would give"
            f" {one_answer:.4f}: run longer (--hours), take another --topology, or raise [update] keep_fraction"
        )
    if short := summary.devices_short_of_samples:
        yield (
            f"{short} of {summary.devices} devices never train, nor mix: they get fewer samples than `minimum_samples`"
            " of their guards; give more samples, fewer --devices, or a --profile with a lower minimum"
        )
