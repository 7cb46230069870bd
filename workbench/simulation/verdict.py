"""What a simulation's figures mean: what was refused and why, what diverged, whether anything was learned. Pure."""

from collections.abc import Iterator, Mapping
from typing import Final, Protocol

from edge_agent.core.triggers import TriggerSettings
from fleet_protocol.errors import Reason
from fleet_protocol.remedies import STEADIER_TRAINING
from workbench.simulation.ledger import Count, Summary

REMEDIES: Final[Mapping[str, str]] = {
    Reason.OUT_OF_BOUNDS: f"what devices learn is too large: {STEADIER_TRAINING}",
    Reason.NOT_FINITE: STEADIER_TRAINING,
    Reason.TOO_STALE: "versions come faster than these devices train: raise [aggregation] buffer_size or max_staleness",
    Reason.UNKNOWN_VERSION: "the version trained on is no longer kept: raise [aggregation] buffer_size",
    Reason.TOO_LARGE: "lower [update] keep_fraction",
}
"""What to change so that the coordinator refuses less; of other reasons its own words say all there is to say."""

NOT_TOLD_APART: Final = (
    "run longer (--hours), or check that labels follow from inputs; a deep model may need normalisation between its"
    " layers, and [training] another learning_rate"
)
"""For a model that learns nothing although updates come."""

ONE_LABEL: Final = "all samples held out have the same label: give some of every label, or correct what labels them"


class Rounds(Protocol):
    """What a summary says of rounds that came to nothing."""

    @property
    def devices(self) -> int: ...
    @property
    def devices_short_of_samples(self) -> int: ...
    @property
    def rounds_diverged(self) -> Count: ...
    @property
    def guard_refusals(self) -> Mapping[str, int]: ...


NO_ROUND: Final = f"; a round takes {TriggerSettings().new_samples} new samples: run longer (--hours)"


def remarks(summary: Summary) -> Iterator[str]:
    """What was refused, diverged, or left out, each with its remedy."""
    for reason, refused in sorted(summary.refused.items(), key=lambda item: -item[1].times):
        remedy = REMEDIES.get(reason)
        yield f"{refused.times:,} refused as {reason}, the first: {refused.words}" + (f"; {remedy}" if remedy else "")
    if summary.collapses:
        yield (
            f"training collapsed {summary.collapses:,} times, and went back to the last good version with smaller"
            f" steps: {STEADIER_TRAINING}"
        )
    if summary.set_aside:
        yield f"{summary.set_aside:,} accepted updates were set aside: with them, weights would no longer be finite"
    if summary.held:
        yield f"{summary.held:,} accepted updates were held in quarantine as suspicious, and nobody released them"
    if diverged := summary.rounds_diverged:
        yield f"{diverged.times:,} rounds diverged, the first: {diverged.words}"
    if worse := summary.rounds_withheld.get("worse"):
        yield f"{worse:,} rounds made the device's validation samples worse, and were not sent"
    if spent := summary.rounds_withheld.get("spent"):
        yield (
            f"{spent:,} times a device had enough of its samples: they come again and again here, and it goes over them"
            " `maximum_epochs` times; give more samples, or raise it in task.toml"
        )
    one_answer = summary.one_answer
    if one_answer is not None and summary.score > summary.first_score and not summary.score > one_answer:
        yield (
            f"{summary.measure} is {summary.score:.4f}, and one answer to all samples would give {one_answer:.4f}: the"
            f" model does not tell samples apart; {_remedy(summary)}"
        )
    if short := summary.devices_short_of_samples:
        yield (
            f"{short} of {summary.devices} devices never train: they get fewer samples than `minimum_samples` of their"
            " guards; give more samples, fewer --devices, or a --profile with a lower minimum"
        )


def failure(summary: Summary) -> str | None:
    """Why the result is worth nothing; None where the fleet has learned."""
    refused = sum(count.times for count in summary.refused.values())
    if summary.stopped:
        return f"versions stopped after {summary.versions:,}: {summary.stopped}; {STEADIER_TRAINING}"
    if not summary.updates:
        return "nothing was learned: no update was accepted" + ("" if refused else why_no_round(summary))
    if refused > summary.updates:
        return f"{refused:,} messages were refused, more than the {summary.updates:,} updates that were accepted"
    if not summary.versions:
        return f"nothing was learned: {summary.updates:,} updates make no version; run longer, or lower --buffer-size"
    if not summary.score > summary.first_score:
        return (
            f"nothing was learned: {summary.measure} is {summary.score:.4f}, that of version 0 was"
            f" {summary.first_score:.4f}; {_remedy(summary)}"
        )
    return None


def why_no_round(summary: Rounds) -> str:
    """Behind words which say that no round came to anything: why, and what to do; empty where a remark says it."""
    if diverged := summary.rounds_diverged:
        return f": each of {diverged.times:,} rounds diverged, the first: {diverged.words}; {STEADIER_TRAINING}"
    if summary.devices_short_of_samples == summary.devices:
        return ""
    if refusals := summary.guard_refusals:
        words, times = max(refusals.items(), key=lambda item: item[1])
        return f"; guards deferred {sum(refusals.values()):,} rounds, most often ({times:,} times): {words}"
    return NO_ROUND


def _remedy(summary: Summary) -> str:
    return ONE_LABEL if summary.one_answer == 1 else NOT_TOLD_APART
