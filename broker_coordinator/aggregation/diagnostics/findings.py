"""What figures of a fleet's updates mean, in words, and what to set. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from broker_coordinator.aggregation.diagnostics.participation import Participation
from fleet_protocol.task_description import TaskDescription

UNEVEN = 0.6
"""A larger Gini coefficient: as where a fifth of the devices sends four fifths of the updates."""

FEWEST_OF_DEVICE = 5
"""Updates of a device on average, below which an even fleet's numbers differ by chance alone."""

MOSTLY = 0.5
"""Of updates."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of a task's last updates; None, or nothing, where there is none to tell. `shortened` is the share that the bound
    by others' norms scaled down, `unlike_labels` the share of devices whose labels are unlike the fleet's, by queries.
    """

    updates: int
    staleness: Mapping[str, float] = field(default_factory=dict)
    shortened: float = 0.0
    unlike_labels: float = 0.0
    participation: Participation | None = None


def findings(figures: Figures, task: TaskDescription) -> list[str]:
    """Sentences; none where all looks well."""
    return [
        *_of_labels(figures.unlike_labels, task),
        *_of_staleness(figures.staleness, task),
        *_of_participation(figures.participation, figures.updates),
        *_of_shortened(figures.shortened),
    ]


def _of_labels(unlike: float, task: TaskDescription) -> Iterator[str]:
    if unlike <= MOSTLY:
        return
    remedies = ["give devices that see one thing a model of their own ([clusters])"]
    if task.aggregation.strategy != "ca2fl":
        remedies.insert(0, 'set aggregation.strategy = "ca2fl", which corrects for who is not in a buffer')
    yield (
        f"devices see different labels: those of {unlike:.0%} of them are unlike the fleet's;"
        f" {', or '.join(remedies)}; compare the loss of versions with and without it"
    )


def _of_staleness(staleness: Mapping[str, float], task: TaskDescription) -> Iterator[str]:
    most = task.aggregation.max_staleness
    if staleness and most and staleness["p90"] > MOSTLY * most:
        yield (
            f"updates come late: a tenth of them is {staleness['p90']:.0f} versions old or older, and max_staleness"
            f" {most} refuses the rest; leave buffer_size out or raise it, so that versions are fewer"
        )


def _of_participation(found: Participation | None, updates: int) -> Iterator[str]:
    if found is None or updates < FEWEST_OF_DEVICE * found.devices:
        return
    if 2 * found.silent > found.devices:
        yield (
            f"{found.silent} of {found.devices} devices have sent nothing: `devices list` shows which are away; their"
            " agents' `edge-agent status` says what they wait for"
        )
    elif found.gini > UNEVEN:
        yield (
            f"few devices send most updates (Gini coefficient {found.gini:.2f}, the busiest one"
            f" {found.busiest_share:.0%}): the model is theirs; let triggers follow the time (cron)"
            " rather than the samples, or ask for rounds with `tasks invite`"
        )


def _of_shortened(share: float) -> Iterator[str]:
    if share > MOSTLY:
        yield (
            f"{share:.0%} of updates are longer than others' and were shortened: rounds differ much in how far they go;"
            " train fewer steps in a round, or with a smaller learning_rate"
        )
