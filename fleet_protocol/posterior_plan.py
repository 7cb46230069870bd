"""A task whose model is a distribution over some of its weights: the table `[posterior]`.

docs/uncertainty.md says how devices learn it. A version has, beside the model, as `NAME@precision`, a precision for
each weight that has a Gaussian, in units in which the prior's precision is its standard deviation: changes of means and
precisions are then alike in size. The other weights are learned as in any task.
"""

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from fleet_protocol.cluster_plan import MAX_PATTERNS, MOST_NAMES_SAID
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_PARAMETERS, MAX_TENSORS
from fleet_protocol.parameter import Parameter

if TYPE_CHECKING:
    from fleet_protocol.task_description import TaskDescription

POSTERIOR: Final = "posterior"
"""The strategy of such a task."""
LARGEST_PRECISION: Final = 10_000.0
"""Of a device's factor in those of the prior, on average (root mean square), where `max_delta_norm` is left out."""


class PosteriorPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where the model is a Gaussian over some weights, learned by partitioned variational inference
    (docs/uncertainty.md)."""

    parameters: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_PATTERNS)] = ()
    """Patterns of names, as shells match files, of the parameters that have a Gaussian; the others are learned as in
    any task. Left out: the last layer's. `["*"]`: all, which learns no large network."""
    prior_deviation: Annotated[float, msgspec.Meta(ge=1e-3, le=1e3)] = 1.0
    """The standard deviation of each weight around its initial value, before any device has learned anything, divided
    by the root of how many inputs its layer sums."""
    damping: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    """By this part of the way a device moves its factor in a round. Lower it where versions swing."""
    step: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.1
    """The part that is taken of each natural gradient step. The other parameters have `training.learning_rate`."""
    draws: Annotated[int, msgspec.Meta(ge=2, le=256)] = 16
    """Models that are drawn for a prediction."""

    def of(self, parameters: Sequence[Parameter]) -> list[bool]:
        """Which of these have a Gaussian."""
        if self.parameters:
            return [any(fnmatchcase(each.name, pattern) for pattern in self.parameters) for each in parameters]
        matrices = [number for number, each in enumerate(parameters) if len(each.shape) > 1]
        return [number >= (matrices or [0])[-1] for number in range(len(parameters))]

    def deviations(self, parameters: Sequence[Parameter]) -> list[float]:
        """The prior's standard deviation of the values of each; 0 where these have no Gaussian. Layers that sum over
        many inputs have small weights: so what a drawn layer gives is about as large whatever its size. A vector is as
        the matrix before it.
        """
        found, inputs = [], 1
        for each, is_drawn in zip(parameters, self.of(parameters), strict=True):
            inputs = math.prod(each.shape[1:]) if len(each.shape) > 1 else inputs
            found.append(self.prior_deviation / math.sqrt(inputs) if is_drawn else 0.0)
        return found

    def largest_norm(self, values: int) -> float:
        """Of an update of so many values, where the task does not say it."""
        return LARGEST_PRECISION * self.prior_deviation * math.sqrt(values)


def precision_of(parameter: Parameter) -> Parameter:
    """The tensor of a version that has the precisions of this one's values."""
    return msgspec.structs.replace(parameter, name=f"{parameter.name}@precision")


def with_precisions(parameters: Sequence[Parameter], plan: PosteriorPlan) -> list[Parameter]:
    """What a version of a model of these holds: all of them, then a precision of each that has a Gaussian."""
    drawn = (each for each, is_drawn in zip(parameters, plan.of(parameters), strict=True) if is_drawn)
    return [*parameters, *map(precision_of, drawn)]


def check_posterior(task: "TaskDescription", name: str) -> None:
    """Check the table, or that its strategy is in no task without it.

    Raises:
        ConfigurationError: the rest of the task has no meaning with it.
    """
    plan = task.posterior
    if (plan is not None) != (task.aggregation.strategy == POSTERIOR):
        raise ConfigurationError(
            f"{name}: aggregation.strategy is {task.aggregation.strategy!r}; a task with [posterior] has"
            f" {POSTERIOR!r}, and no other task: write both, or neither"
        )
    if plan is None:
        return
    _check_company(task, name)
    _check_parameters(task, plan, name)
    _check_likelihood(task, name)
    _check_steps(task, name)
    _check_server(task, name)
    _check_grid(task, name)
    size, tensors = task.version.size, len(task.version.parameters)
    if size > MAX_PARAMETERS or tensors > MAX_TENSORS:
        raise ConfigurationError(
            f"{name}: with a precision of each, a version has {size} values in {tensors} tensors; allowed are"
            f" {MAX_PARAMETERS} in {MAX_TENSORS}: let fewer parameters train, or leave [posterior] out"
        )


def _check_parameters(task: "TaskDescription", plan: PosteriorPlan, name: str) -> None:
    """Raise `ConfigurationError` if a pattern is of nothing, or if parts of an update would be compared."""
    names = [each.name for each in task.parameters]
    known = ", ".join(names[:MOST_NAMES_SAID])
    if unmatched := [each for each in plan.parameters if not any(fnmatchcase(known_, each) for known_ in names)]:
        raise ConfigurationError(
            f"{name}: posterior.parameters: no parameter is called like {unmatched[0]!r}; there are {known}"
        )
    if len(set(plan.parameters)) < len(plan.parameters):
        raise ConfigurationError(f"{name}: posterior.parameters: a pattern stands there twice; leave one out")
    if all(plan.of(task.parameters)):
        return
    for setting, compares, instead in (
        ("selection", ("top_k", "threshold"), "top_k_per_tensor"),
        ("quantisation", ("sign",), "ternary"),
    ):
        if (value := getattr(task.update, setting)) in compares:
            raise ConfigurationError(
                f"{name}: update.{setting} is {value!r}, which compares changes of weights with changes of precisions;"
                f' with [posterior] write update.{setting} = "{instead}"'
            )


def _check_company(task: "TaskDescription", name: str) -> None:
    """Raise `ConfigurationError` for what does not go with factors that add, and say why."""
    others = {
        "[split]": (task.split, "a helper's blocks have no factor of one device"),
        "[solved_head]": (task.solved_head, "the coordinator solves the head at once"),
        "[prompts]": (task.prompts, "synthetic data is in no device's factor"),
        "[clusters]": (task.clusters, "a device's factor is of one model, and its cluster may change"),
        "[personal]": (task.personal, "what stays on a device is in no factor"),
        "[drawing]": (task.drawing, "generators have no likelihood"),
        "[privacy.samples]": (task.sample_privacy, "the steps that find precisions are not counted"),
        "[privacy.masks]": (task.masks, "the coordinator keeps each device's factor"),
        "[privacy.devices]": (
            task.device_privacy,
            "the coordinator keeps each factor, without noise",
        ),
        "[aggregation.robust]": (task.aggregation.rule, "factors add, and have no mean that a rule could replace"),
        "[aggregation.quarantine]": (task.aggregation.suspects, "device and coordinator keep the same factor"),
        "[heads]": (task.heads or None, "the labels of one head are drawn"),
    }
    for table, (found, why) in others.items():
        if found is not None:
            raise ConfigurationError(f"{name}: {table} does not go with [posterior]: {why}; leave one of them out")
    if task.sending.rule != "always":
        raise ConfigurationError(
            f"{name}: sending.rule is {task.sending.rule!r}, and a factor that stays unsent is the one before; leave"
            " [sending] out of a task with [posterior]"
        )


def _check_likelihood(task: "TaskDescription", name: str) -> None:
    """Raise `ConfigurationError` where no labels can be drawn from the model's own predictions."""
    label = task.label
    if not (label.kind == "class" and label.is_index) and label.kind != "regression":
        shown = f"{label.kind!r} with positions" if label.kind == "class" else repr(label.kind)
        raise ConfigurationError(
            f"{name}: [posterior] takes label.kind 'class', one for each sample, or 'regression'; this is {shown}:"
            " leave [posterior] out"
        )
    if task.scaling.targets is not None:
        raise ConfigurationError(
            f"{name}: scaling.targets change what the loss says of labels, and [posterior] takes it for their"
            ' likelihood; write [scaling] targets = "off", and labels of a deviation near 1'
        )
    if task.statistics:
        raise ConfigurationError(
            f'{name}: running statistics have no posterior; write batch_norm = "frozen", or leave [posterior] out'
        )


def _check_steps(task: "TaskDescription", name: str) -> None:
    """Raise `ConfigurationError` where a step of the training graph is not its gradient."""
    training = task.training
    if training.optimiser != "sgd":
        raise ConfigurationError(
            f"{name}: [posterior] reads the gradient from one step of plain SGD, and training.optimiser is"
            f' {training.optimiser!r}; write training.optimiser = "sgd"'
        )
    for setting in ("weight_decay", "gradient_clip", "proximal", "per_sample_gradients"):
        if getattr(training, setting):
            raise ConfigurationError(
                f"{name}: training.{setting} would be taken for a part of the gradient that [posterior] reads from one"
                " step; leave it out"
            )


def _check_server(task: "TaskDescription", name: str) -> None:
    """Raise `ConfigurationError` where a version would be anything but the product of factors."""
    plan = task.aggregation
    if plan.server_optimiser not in ("sgd", "momentum") or plan.server_momentum or plan.server_learning_rate != 1:
        raise ConfigurationError(
            f"{name}: a version of a task with [posterior] is the product of its factors, and no optimiser goes another"
            " way there; leave aggregation.server_optimiser, server_momentum and server_learning_rate out"
        )


def _check_grid(task: "TaskDescription", name: str) -> None:
    """Raise `ConfigurationError` where published precisions would be rounded away: those of a tensor begin alike, so a
    step of the grid (`codec.Grid`) that is larger than their magnitude makes them all 0, or twice as large.
    """
    plan = task.downlink
    if plan.differences == "lossy" and plan.precision_bits < 0:
        raise ConfigurationError(
            f"{name}: with downlink.precision_bits {plan.precision_bits} the grid is coarser than the precisions of"
            " [posterior], which would be published as 0, or as twice what they are; write 0 or more, or"
            ' downlink.differences = "exact"'
        )
