"""What the numbers of a task mean, in words: that it collapsed, that it diverges, that updates are refused. Pure."""

import time
from collections.abc import Mapping, Sequence

from broker_coordinator.storage.records import Collapse, VersionSummary
from broker_coordinator.storage.restores import Restore
from fleet_protocol.errors import Reason

OF_SCALE = (Reason.OUT_OF_BOUNDS, Reason.NOT_FINITE)
"""Refusals for numbers that are too large."""

FEWEST_OUTCOMES = 10
"""Updates of which most must be refused before anything is said."""

DIVERGED = 10.0
"""Each of the last two versions' mean losses over the smallest one: noise and new devices stay far below. One alone may
be of the few devices that have a class."""

TIME = "%Y-%m-%d %H:%M"

REMEDY = (
    "look at the scale of the inputs (the task's range, sensors in raw units) and at `learning_rate`, and publish the"
    " corrected bundle under the same name"
)


def advice(
    versions: Sequence[VersionSummary],
    accepted: int,
    refused: Mapping[Reason, int],
    restored: Restore | None = None,
    collapse: Collapse | None = None,
) -> list[str]:
    """Sentences; none where all looks well.

    `versions` are the last ones since the task's bundle was published, or went back to an older version, oldest first.
    Of the last updates, so many were `accepted` and `refused`. `restored`: the last time that an older database took
    the place of this one. `collapse`: the last one with this bundle.
    """
    return [
        *_of_restore(restored),
        *_of_collapse(collapse),
        *_of_losses(versions),
        *_of_refusals(accepted, refused),
    ]


def _of_restore(restored: Restore | None) -> list[str]:
    if restored is None:
        return []
    of = "an earlier state" if restored.made is None else time.strftime(TIME, time.localtime(restored.made))
    return [
        f"this database was put back to {of}: versions, devices, revocations and invitations of later are not in it;"
        " look through `devices list` (docs/operating.md, Back up and restore)"
    ]


def _of_collapse(collapse: Collapse | None) -> list[str]:
    if collapse is None:
        return []
    return [
        f"training collapsed at version {collapse.number - 1}: version {collapse.number} goes back to"
        f" {collapse.restored}, and the server's learning rate is {collapse.step:g} of the task's since then; {REMEDY}"
    ]


def _of_losses(versions: Sequence[VersionSummary]) -> list[str]:
    losses = [version.mean_loss for version in versions if version.mean_loss is not None]
    if not losses or min(losses) <= 0 or min(losses[-2:]) <= DIVERGED * min(losses):
        return []
    return [f"training diverges: the mean loss has grown from {min(losses):.4g} to {losses[-1]:.4g}; {REMEDY}"]


def _of_refusals(accepted: int, refused: Mapping[Reason, int]) -> list[str]:
    total = accepted + sum(refused.values())
    if total < FEWEST_OUTCOMES or not refused or 2 * sum(refused.values()) <= total:
        return []
    reason = max(refused, key=lambda each: refused[each])
    said = f"{sum(refused.values())} of the last {total} updates were refused, most as {reason.value}"
    return [f"{said}; {REMEDY}" if reason in OF_SCALE else f"{said}; `devices show NAME` counts them by device"]
