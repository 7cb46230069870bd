"""A task whose devices have a model of their own beside the shared one: the table `[personal]`.

docs/personal-models.md says what the methods are. What is personal never leaves a device. A version has the initial
values in its place, which no update moves.
"""

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from fleet_protocol.cluster_plan import MAX_PATTERNS, MOST_NAMES_SAID
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_STEPS_PER_UPDATE

if TYPE_CHECKING:
    from fleet_protocol.task_description import TaskDescription

PersonalMethod = Literal["parts", "ditto", "reptile", "maml"]

USUAL_PULL: Final = 0.1
"""Ditto's lambda where nothing is said: one of the three that its paper tries."""
USUAL_ADAPTATION: Final = 5
"""Steps on a device's own samples after which a shared model is to be good, where nothing is said."""
MOST_ADAPTATION_STEPS: Final = 1000
"""Their batches are planned at once."""

SETTINGS: Final[dict[str, frozenset[str]]] = {
    "parts": frozenset({"parameters", "first_steps"}),
    "ditto": frozenset({"pull"}),
    "reptile": frozenset({"adaptation_steps", "adaptation_rate"}),
    "maml": frozenset({"adaptation_steps", "adaptation_rate"}),
}
"""Which settings a method has."""


class PersonalPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What of the model is each device's own, and how it trains (docs/personal-models.md)."""

    method: PersonalMethod = "parts"
    """`parts`: some parameters never leave the device (FedPer, FedRep, FedBN); `ditto`: each device has a copy of the
    whole model that is pulled towards the shared one; `reptile` and `maml` (Per-FedAvg, first order): the shared model
    is one to begin with, and each device adapts it to its samples."""
    parameters: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_PATTERNS)] = ()
    """Of `parts`: patterns of names, as shells match files, of the parameters that are each device's own."""
    first_steps: Annotated[int, msgspec.Meta(ge=0, le=MAX_STEPS_PER_UPDATE)] = 0
    """Of `parts`: so many of a round's `training.steps` train the personal parameters alone, and the steps behind them
    the shared ones alone (FedRep). 0: each step trains both (FedPer)."""
    pull: Annotated[float, msgspec.Meta(ge=0, le=1e6)] | None = None
    """Of `ditto`: how strongly the copy is pulled towards the shared model, lambda of its paper; left out, 0.1. 0: not
    at all."""
    adaptation_steps: Annotated[int, msgspec.Meta(ge=1, le=MOST_ADAPTATION_STEPS)] | None = None
    """Of `reptile` and `maml`: steps on the device's own samples that make the shared model its own; left out, 5."""
    adaptation_rate: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None
    """Of `reptile` and `maml`: the learning rate of these steps; left out, `training.learning_rate`."""

    @property
    def lambda_(self) -> float:
        """Ditto's."""
        return USUAL_PULL if self.pull is None else self.pull

    @property
    def steps_to_adapt(self) -> int:
        """How many steps make the shared model a device's own."""
        return self.adaptation_steps or USUAL_ADAPTATION

    @property
    def keeps_whole_model(self) -> bool:
        """Whether what a device keeps is a model, and not some parameters of one."""
        return self.method != "parts"

    @property
    def steps_singly(self) -> bool:
        """Whether something happens between two steps, so that nothing but weights may go from one to the next."""
        return self.method in ("ditto", "maml") or self.first_steps > 0

    def own(self, names: Sequence[str]) -> frozenset[str]:
        """Those of the parameters' `names` that never leave a device."""
        return frozenset(name for name in names if any(fnmatchcase(name, each) for each in self.parameters))


def check_personal(task: "TaskDescription", plan: PersonalPlan, name: str) -> None:
    """Check the table on the rest of a task.

    Raises:
        ConfigurationError: a setting has no effect, nothing would be shared or nothing personal, or something else of
            the task is one model for everybody.
    """
    _check_settings(plan, name)
    _check_company(task, name)
    if plan.method == "parts":
        _check_parts(task, plan, name)
    if plan.method == "ditto" and (reach := task.training.learning_rate * plan.lambda_) > 1:
        raise ConfigurationError(
            f"{name}: training.learning_rate times personal.pull is {reach:g}; at most 1: with more, each step would go"
            " past the shared model; lower personal.pull"
        )
    if plan.steps_singly and task.training.optimiser != "sgd":
        raise ConfigurationError(
            f"{name}: [personal] does something between a round's steps, and optimiser {task.training.optimiser!r}"
            ' remembers across them; write training.optimiser = "sgd"'
            + (", or leave personal.first_steps out" if plan.first_steps else "")
        )
    if task.training.has_proximal and plan.steps_singly and plan.method != "ditto":
        raise ConfigurationError(
            f"{name}: training.proximal pulls towards where a call of the training graph began, and [personal] makes a"
            " call of each step; leave training.proximal and training.adaptive_proximal out"
        )


def _check_settings(plan: PersonalPlan, name: str) -> None:
    """Raise `ConfigurationError` for a setting of another method."""
    left_out = PersonalPlan()
    fields = [each for each in plan.__struct_fields__ if each != "method"]
    given = {each for each in fields if getattr(plan, each) != getattr(left_out, each)}
    if strange := sorted(given - SETTINGS[plan.method]):
        raise ConfigurationError(
            f"{name}: personal.{strange[0]} has no effect with personal.method = {plan.method!r}, which has"
            f" {' and '.join(sorted(SETTINGS[plan.method]))}; leave it out"
        )
    if len(set(plan.parameters)) < len(plan.parameters):
        raise ConfigurationError(f"{name}: personal.parameters: a pattern stands there twice; leave one out")


def _check_company(task: "TaskDescription", name: str) -> None:
    """Raise `ConfigurationError` for what does not go with a model for each device, and say why."""
    others = {
        "[split]": (task.split, "a helper trains its blocks for many devices"),
        "[solved_head]": (task.solved_head, "the coordinator solves one head for everybody"),
        "[prompts]": (task.prompts, "what is trained on synthetic data is one model for everybody"),
        "[clusters]": (task.clusters, "a device's cluster has a copy for it already"),
        "[drawing]": (task.drawing, "generators are drawn with at the coordinator, which has no personal part"),
        "[privacy.samples]": (task.sample_privacy, "steps that keep something here are not counted"),
        "[privacy.masks]": (task.masks, "masks lie on all parameters alike"),
    }
    for table, (found, why) in others.items():
        if found is not None:
            raise ConfigurationError(f"{name}: {table} does not go with [personal]: {why}; leave one of them out")
    if task.versions_from != "update":
        raise ConfigurationError(
            f"{name}: [personal] needs versions that are made from updates, and these are made from"
            f" {task.versions_from}; leave [personal] out"
        )


def _check_parts(task: "TaskDescription", plan: PersonalPlan, name: str) -> None:
    """Raise `ConfigurationError` if the patterns leave nothing to share, or nothing personal."""
    names = [each.name for each in task.parameters]
    known = ", ".join(names[:MOST_NAMES_SAID])
    if not plan.parameters:
        raise ConfigurationError(
            f'{name}: [personal] names no parameters; write personal.parameters = ["PATTERN"]; there are {known}'
        )
    if unmatched := [each for each in plan.parameters if not any(fnmatchcase(known_, each) for known_ in names)]:
        raise ConfigurationError(
            f"{name}: personal.parameters: no parameter is called like {unmatched[0]!r}; there are {known}"
        )
    if not _trains(task, others_than=plan.own(names)):
        raise ConfigurationError(
            f"{name}: personal.parameters are all that train: nothing would be shared; name fewer of {known}"
        )
    if plan.first_steps and not _trains(task, others_than=set(names) - plan.own(names)):
        raise ConfigurationError(
            f"{name}: personal.first_steps train the personal parameters alone, and those that are named are running"
            " statistics; leave first_steps out"
        )
    if plan.first_steps >= task.training.steps:
        raise ConfigurationError(
            f"{name}: personal.first_steps is {plan.first_steps} of {task.training.steps} training.steps: the shared"
            " parameters would never train; lower it, or raise training.steps"
        )


def _trains(task: "TaskDescription", *, others_than: Collection[str]) -> bool:
    """Whether a parameter trains that is none of these."""
    return any(each.trainable and each.name not in others_than for each in task.parameters)
