"""Which devices train for a version, where a task does not take everybody: the table `[selection]`. Pure.

What a device is worth follows Oort (Lai et al. 2021, OSDI, equation 1), of which a device knows all but the losses of
single samples:

    utility = |B| sqrt(mean of loss^2) * (T / t)^alpha where t > T

The coordinator knows how long a device's rounds take as far as versions are made meanwhile. So does the device count:
both have to come to the same utility, or a threshold asks fewer devices than it is to.

docs/selection.md says what stands for each of them.
"""

import math
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from fleet_protocol.errors import ConfigurationError

if TYPE_CHECKING:
    from fleet_protocol.task_description import TaskDescription

SelectionMethod = Literal["utility", "power_of_choice", "pisces"]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]

USUAL_EXPLORATION: Final = 0.9
"""Oort's at the start."""
LEAST_EXPLORATION: Final = 0.2
"""Of an exploration of `USUAL_EXPLORATION`; Oort's too."""
EXPLORATION_DECAY: Final = 0.98
"""A version; Oort's, a round."""
USUAL_SPEED_WEIGHT: Final = 2.0
"""Oort's alpha."""
USUAL_STALENESS_WEIGHT: Final = 0.5
"""As Pisces has it."""
MOST_STALENESS: Final = 1e9
"""Versions; more are as good as never."""
USUAL_CANDIDATES: Final = 0.75

SETTINGS: Final[dict[str, frozenset[str]]] = {
    "utility": frozenset({"exploration", "preferred_seconds", "speed_weight"}),
    "power_of_choice": frozenset({"candidates"}),
    "pisces": frozenset({"exploration", "staleness_weight"}),
}
"""Which settings a method has, besides those of all."""


class SelectionPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which devices train for a version; left out, all that have samples (docs/selection.md)."""

    method: SelectionMethod = "utility"
    """`utility`: those with much to learn, and fast (Oort: Lai et al. 2021). `power_of_choice`: of some that are drawn,
    those with the highest loss (Cho et al. 2020). `pisces`: those with much to learn, less so where their updates come
    stale (Jiang et al. 2022)."""
    share: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.5
    """Of the devices, so many are to train for a version; a buffer's worth at least."""
    fairness: Share = 0.75
    """A device that has sent fewer than this share of the mean number of updates since it joined trains whatever it is
    worth. 0: nobody is seen to."""
    patience_seconds: Annotated[float, msgspec.Meta(ge=1, le=1e7)] = 3600.0
    """When a version is so old and no newer one is made, every device may train; earlier where versions take less than
    a third of that while everybody trains."""
    exploration: Share | None = None
    """Of `utility` and `pisces`: a device that has never trained is drawn with this share of the chance that `share`
    gives. It falls by 2 % with each version, to two ninths of it; left out, from 0.9 to 0.2."""
    preferred_seconds: Annotated[float, msgspec.Meta(gt=0, le=1e7)] | None = None
    """Of `utility`: a device whose rounds take longer is worth less; they count in whole versions that are made
    meanwhile. Left out, its speed does not matter."""
    speed_weight: Annotated[float, msgspec.Meta(gt=0, le=10)] | None = None
    """Of `utility` with `preferred_seconds`: how much less, Oort's alpha; left out, 2: a device whose rounds take twice
    as long is worth a quarter."""
    candidates: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    """Of `power_of_choice`: so large a share of the devices is drawn, of which `share` of all train; left out, 0.75."""
    staleness_weight: Annotated[float, msgspec.Meta(gt=0, le=10)] | None = None
    """Of `pisces`: what a device is worth is divided by one more than its expected staleness to this power; left out,
    0.5."""

    @property
    def drawn_candidates(self) -> float:
        """The share of the devices of which some are chosen."""
        return USUAL_CANDIDATES if self.candidates is None else self.candidates

    def new_drawn(self, versions: int) -> float:
        """The chance of a device that has never trained, so many versions after the task's first one."""
        first = USUAL_EXPLORATION if self.exploration is None else self.exploration
        falls_to = max(LEAST_EXPLORATION / USUAL_EXPLORATION, EXPLORATION_DECAY ** min(versions, 1000))
        return first * falls_to * self.share

    def utility(self, samples: int, loss: float) -> float:
        """What is to be learned from a device whose last round was on so many samples, with that loss at its begin; 0
        where the loss is below 0, as one of the task's own may be.
        """
        return max(loss, 0.0) * (1 if self.method == "power_of_choice" else samples)

    def discount(self, staleness: int, version_seconds: float) -> float:
        """By what a device's utility is multiplied, at most 1, where so many versions are made during its round and
        one comes every `version_seconds`; 1 where that is 0, not known.
        """
        if version_seconds <= 0:
            return 1.0
        if self.method == "utility" and self.preferred_seconds is not None:
            alpha = USUAL_SPEED_WEIGHT if self.speed_weight is None else self.speed_weight
            round_seconds = staleness * version_seconds
            return math.pow(self.preferred_seconds / max(round_seconds, self.preferred_seconds), alpha)
        if self.method == "pisces":
            beta = USUAL_STALENESS_WEIGHT if self.staleness_weight is None else self.staleness_weight
            return math.pow(staleness + 1.0, -beta)
        return 1.0


def expected_staleness(round_seconds: float, version_seconds: float) -> int:
    """How many versions are made during a round at least; 0 where it is not known how often one comes."""
    return math.floor(min(round_seconds / version_seconds, MOST_STALENESS)) if version_seconds > 0 else 0


def check_selection(task: "TaskDescription", plan: SelectionPlan, name: str) -> None:
    """Check the table on the rest of a task; `name` is the file.

    Raises:
        ConfigurationError: a setting has no effect, or devices of the task choose themselves in another way, or tell
            nothing that they could be chosen by.
    """
    _check_settings(plan, name)
    rule = task.aggregation.rule
    others = {
        "aggregation.robust.trusted_devices": (
            rule and (rule.trusted_devices or None),
            "a device that fits its few samples is worth least, and would not judge",
        ),
        "[split]": (task.split, "helpers have a part in its rounds"),
        "[solved_head]": (task.solved_head, "every device tells its sums once"),
        "[prompts]": (task.prompts, "devices train no rounds"),
        "[privacy.masks]": (task.masks, "a cohort's devices choose themselves"),
        "[privacy.devices]": (task.device_privacy, "who trains would tell of what devices have"),
        "[privacy.samples]": (task.sample_privacy, "devices tell no loss to be chosen by"),
    }
    for table, (found, why) in others.items():
        if found is not None:
            raise ConfigurationError(f"{name}: {table} does not go with [selection]: {why}; leave one of them out")
    if task.aggregation.strategy == "fedavg":
        raise ConfigurationError(
            f"{name}: aggregation.strategy 'fedavg' draws the devices of each round by itself, which [selection] would"
            " undo; take 'fedbuff', or leave [selection] out"
        )
    if task.versions_from != "update":
        raise ConfigurationError(
            f"{name}: [selection] chooses devices by the losses of their updates, and versions are made from"
            f" {task.versions_from!r}; leave it out"
        )


def _check_settings(plan: SelectionPlan, name: str) -> None:
    """Raise `ConfigurationError` for settings that have no effect, or contradict each other."""
    of_methods = frozenset[str]().union(*SETTINGS.values())
    given = {each for each in of_methods if getattr(plan, each) is not None}
    if strange := sorted(given - SETTINGS[plan.method]):
        raise ConfigurationError(
            f"{name}: selection.{strange[0]} has no effect with selection.method = {plan.method!r}, which has"
            f" {' and '.join(sorted(SETTINGS[plan.method]))}; leave it out"
        )
    if plan.speed_weight is not None and plan.preferred_seconds is None:
        raise ConfigurationError(
            f"{name}: selection.speed_weight has no effect without selection.preferred_seconds; write that too, or"
            " leave it out"
        )
    if plan.method == "power_of_choice" and plan.share >= plan.drawn_candidates:
        raise ConfigurationError(
            f"{name}: selection.share is {plan.share:g}, and selection.candidates {plan.drawn_candidates:g}, of which"
            " those that train are chosen; lower the share, or raise candidates"
        )
