"""A rule in the place of the mean, against devices that mean ill: the table `[aggregation.robust]`. Pure."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from fleet_protocol.configuration import Name
from fleet_protocol.errors import ConfigurationError

if TYPE_CHECKING:
    from fleet_protocol.aggregation_plan import AggregationPlan
    from fleet_protocol.task_description import TaskDescription

RuleName = Literal[
    "median",
    "trimmed_mean",
    "geometric_median",
    "krum",
    "multi_krum",
    "bulyan",
    "centred_clipping",
    "spectral",
    "zeno",
    "fltrust",
]

USUAL_HOSTILE_SHARE: Final = 0.2
MOST_IN_BUCKET: Final = 64
FEWEST_COMPARED: Final = 5
"""Of fewer, no rule can say which are the unusual ones: one of four is a quarter of them."""
COUNTING_RULES: Final = ("trimmed_mean", "krum", "multi_krum", "bulyan", "spectral")
"""Those that leave out as many as may be hostile."""
TRUSTING_RULES: Final = ("zeno", "fltrust")
"""Those that compare each update with what trusted devices sent, and none with another: they need no majority."""
MOST_TRUSTED: Final = 16
MOST_HOSTILE: Final[Mapping[str, float]] = {"bulyan": 0.25}
"""Share of what a rule compares that it withstands less than; half of it unless said here."""
HALF: Final = 0.5
ROUNDING: Final = 1e-9
NEEDED: Final[Mapping[str, tuple[int, int]]] = {
    "trimmed_mean": (2, 1),
    "krum": (2, 3),
    "multi_krum": (2, 3),
    "bulyan": (4, 3),
    "spectral": (2, 1),
}
"""Updates that a rule compares at least, where f may be hostile: so many times f, and so many more."""
MOST_COMPARED: Final = 256
"""Of a larger fleet, so many are drawn."""

NOT_ROBUST: Final[Mapping[str, str]] = {
    "base_mean": "it corrects the mean of what began with one version by each later update",
    "ca2fl": "its correction is the difference of two means, which no rule over single updates gives",
    "fadas": "its rate follows the largest staleness, which a single device chooses",
    "fedasync": "it takes one update at a time, and has nothing to compare it with",
    "posterior": "factors add, and have no mean that a rule could replace",
    "ef21": "device and coordinator keep the same estimate, so no update may be left out",
}
"""Strategies that take no rule in the place of a mean, and why."""
COMPARES_A_BUFFER: Final = ("fedbuff", "fedavg")


class RobustPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A rule that withstands some hostile devices takes the place of the mean, with `strategy` `aced`, `fedbuff` or
    `fedavg` (docs/robustness.md says what each costs, and against what it helps).
    """

    rule: RuleName
    """Over what is averaged otherwise: with `aced` the last update of every device, else the buffer. `median` and
    `trimmed_mean` (Yin et al. 2018) of each entry, over the updates that sent it. `geometric_median` (RFA: Pillutla et
    al. 2022). `krum` and `multi_krum` (Blanchard et al. 2017): the updates nearest to most others. `bulyan` (El Mhamdi
    et al. 2018): those, and then the middle of each entry. `centred_clipping` (Karimireddy et al. 2021): the mean of
    what is clipped to a ball around the last direction. `spectral` (Shejwalkar & Houmansadr 2021): the mean without
    those that differ most in the direction in which all differ most. `zeno` (Zeno++: Xie et al. 2020): those that help,
    by what `trusted_devices` sent. `fltrust` (Cao et al. 2021): each by how far it goes where these go."""
    hostile_share: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] = USUAL_HOSTILE_SHARE
    """The largest share of the devices that may be hostile: `trimmed_mean` leaves out as many at both ends, `krum`,
    `multi_krum`, `bulyan` and `spectral` as many. `bulyan` withstands less than a quarter."""
    bucket_size: Annotated[int, msgspec.Meta(ge=1, le=MOST_IN_BUCKET)] = 1
    """Means of so many updates, drawn anew for each version, are compared in the place of single ones (Karimireddy et
    al. 2022): for devices that see different things. So many times as large a share of them may be hostile. At most 256
    are compared, drawn anew too. Not with `zeno` and `fltrust`, which judge single updates."""
    trusted_devices: Annotated[tuple[Name, ...], msgspec.Meta(max_length=MOST_TRUSTED)] = ()
    """For `zeno` and `fltrust`: devices of the operator's, beside the coordinator or elsewhere, with samples that are
    known to be right, a hundred or more of all classes. What they send judges the others, and moves nothing itself.
    While none of them has sent anything in the last `max_staleness` versions, the model stays as it is."""

    def hostile_of(self, compared: int) -> int:
        """How many of so many that are compared may be hostile: one at least."""
        return max(1, math.ceil(min(self.hostile_share * self.bucket_size, HALF) * compared - ROUNDING))

    def can_judge(self, compared: int) -> bool:
        """Whether so many are enough for the rule to withstand as many as may be hostile."""
        if self.rule in TRUSTING_RULES:
            return True
        times, more = NEEDED.get(self.rule, (0, FEWEST_COMPARED))
        return compared >= max(FEWEST_COMPARED, times * self.hostile_of(compared) + more)


def check_robust(plan: "AggregationPlan", robust: RobustPlan, name: str) -> None:
    """Check that a rule has something to compare, and that its settings mean something; `name` is the file.

    Raises:
        ConfigurationError: what contradicts it, and what to write.
    """
    for holds, otherwise in (*_rules_of_settings(robust), *_rules_of_strategy(plan, robust)):
        if not holds:
            raise ConfigurationError(f"{name}: [aggregation.robust] {otherwise}")


def _rules_of_settings(robust: RobustPlan) -> list[tuple[bool, str]]:
    most = MOST_HOSTILE.get(robust.rule, HALF)
    share = robust.hostile_share * robust.bucket_size
    trusted = robust.trusted_devices
    return [
        (
            robust.rule not in TRUSTING_RULES or bool(trusted),
            f"has rule {robust.rule!r}, which judges by what devices of yours send, and names none; write"
            ' trusted_devices = ["NAME"], one with samples that are known to be right',
        ),
        (
            robust.rule in TRUSTING_RULES or not trusted,
            f"has trusted_devices = {list(trusted)}, and rule {robust.rule!r} does not use them; leave them out, or"
            f" take {' or '.join(map(repr, TRUSTING_RULES))}",
        ),
        (
            len(set(trusted)) == len(trusted),
            f"has trusted_devices = {list(trusted)}, which names one twice; leave one of them",
        ),
        (
            robust.rule not in TRUSTING_RULES or robust.bucket_size == 1,
            f"has bucket_size = {robust.bucket_size}, and rule {robust.rule!r} judges single updates by trusted"
            " devices: a bucket would mix what it counts with what it leaves out; leave bucket_size out",
        ),
        (
            robust.rule in COUNTING_RULES or robust.hostile_share == USUAL_HOSTILE_SHARE,
            f"has hostile_share = {robust.hostile_share:g}, and rule {robust.rule!r} does not use it; leave it out, or"
            f" take {' or '.join(map(repr, COUNTING_RULES))}",
        ),
        (
            share < most,
            f"lets {share:g} of what is compared be hostile (hostile_share times bucket_size), and {robust.rule!r}"
            f" withstands less than {most:g}; lower one of them",
        ),
    ]


def _rules_of_strategy(plan: "AggregationPlan", robust: RobustPlan) -> list[tuple[bool, str]]:
    why = NOT_ROBUST.get(plan.strategy)
    compared = -(-(plan.buffer_size or 0) // robust.bucket_size)
    enough = next((count for count in range(compared, MOST_COMPARED) if robust.can_judge(count)), MOST_COMPARED)
    return [
        (
            why is None,
            f"does not go with aggregation.strategy {plan.strategy!r}: {why}; take 'aced', which compares the last"
            " update of every device, or 'fedbuff'",
        ),
        (
            plan.strategy not in COMPARES_A_BUFFER or robust.can_judge(compared),
            f"compares the updates of a buffer with aggregation.strategy {plan.strategy!r}, and those of"
            f" {plan.buffer_size or 'a small one'} are too few for {robust.rule!r} to withstand"
            f" {robust.hostile_of(compared)}; write aggregation.buffer_size = {enough * robust.bucket_size}, or take"
            " 'aced'",
        ),
        (
            robust.rule not in TRUSTING_RULES or plan.strategy != "fedavg",
            f"has rule {robust.rule!r}, and with aggregation.strategy 'fedavg' a round asks devices by chance, so that"
            " none that is trusted may be in it; take 'aced' or 'fedbuff'",
        ),
        (
            robust.rule != "centred_clipping" or plan.server_optimiser == "momentum",
            f"clips around the last direction, which aggregation.server_optimiser {plan.server_optimiser!r} does not"
            " keep; take 'momentum'",
        ),
    ]


def check_robust_task(task: "TaskDescription", name: str) -> None:
    """Check that a rule has whole single updates to compare, and that nothing goes past it.

    Raises:
        ConfigurationError: what keeps it from that, and what to write.
    """
    check_single_updates(task, "aggregation.robust", name)
    if task.statistics:
        raise ConfigurationError(
            f"{name}: [aggregation.robust] compares no running statistics, and the model has {task.statistics} values"
            " of them; take GroupNorm, or write batch_norm = 'frozen'"
        )


def check_single_updates(task: "TaskDescription", table: str, name: str) -> None:
    """Check that the coordinator sees whole single updates, which the table `table` compares.

    Raises:
        ConfigurationError: what keeps it from that, and what to write.
    """
    tables = {
        "privacy.masks": (task.masks, "which shows the coordinator sums alone"),
        "privacy.devices": (task.device_privacy, "which bounds what one device moves by a clip and noise"),
        "split": (task.split, "where an update holds some blocks alone"),
        "clusters": (task.clusters, "where devices train different copies"),
    }
    for other, (there, why) in tables.items():
        if there is not None:
            raise ConfigurationError(
                f"{name}: [{table}] compares whole updates with each other, and does not go with [{other}],"
                f" {why}; leave one of them out"
            )
    if task.versions_from != "update":
        raise ConfigurationError(
            f"{name}: [{table}] compares updates, and versions are made from {task.versions_from!r}; leave it out"
        )
