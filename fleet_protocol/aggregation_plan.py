"""How versions are made from updates: the table `aggregation` of a task, and which settings exclude others."""

import math
from typing import Annotated, Literal

import msgspec

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_AVERAGED_VERSIONS, MAX_SAMPLES_PER_UPDATE

StrategyName = Literal["fedbuff", "fedasync", "fedavg", "ca2fl", "aced", "fadas", "ef21"]
ServerOptimiser = Literal["sgd", "momentum", "adagrad", "adam", "yogi", "amsgrad"]

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Decay = Annotated[float, msgspec.Meta(ge=0, lt=1)]


class AggregationPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the coordinator makes a version out of `buffer_size` updates.

    `strategy`: `fedbuff` (Nguyen et al. 2022); `ca2fl` (Wang et al. 2024) for devices that see very different classes;
    `aced` (Chang et al. 2025), the mean of every device's last update if it is based on one of the last
    `cached_staleness` versions; `fadas` (Wang et al. 2024), with a server learning rate that falls with the largest
    staleness in the buffer, above `delay_threshold`; `fedasync` (Xie et al. 2019); `ef21` (Richtarik et al. 2021), the
    other half of the error feedback of that name; and, as a baseline, `fedavg` (McMahan et al. 2017), where a version
    is a round: `over_selection` times `buffer_size` devices are asked, and after `round_seconds` it ends with those
    that have reported.

    An update with staleness s weighs `samples` times, by `staleness_weighting`: 1; (1 + s) ** -staleness_exponent; or 1
    up to `staleness_hinge` and from there 1 / (1 + staleness_slope * (s - staleness_hinge)). Above `max_staleness` it
    is refused.

    `server_optimiser` applies the result: plain (`sgd`), with `server_momentum`, or adaptively (Reddi et al. 2021) with
    the second moments decaying by `server_second_momentum` and `server_adaptivity` as the smallest divisor.

    A declared sample count above `max_samples` counts as that many. `max_delta_norm` bounds the Euclidean norm of one
    update; so does `norm_quantile_factor`, if not 0, times the running `norm_quantile` of the norms that come in.
    Devices train from the newest version; the model to use is the mean of the last `averaged_versions`.
    """

    buffer_size: Annotated[int, msgspec.Meta(ge=1)]
    strategy: StrategyName = "fedbuff"
    staleness_weighting: Literal["constant", "polynomial", "hinge"] = "polynomial"
    staleness_exponent: NotNegative = 0.5
    staleness_hinge: Count = 4
    staleness_slope: Positive = 10.0
    max_staleness: Count = 20
    cached_staleness: Count = 20
    delay_threshold: Count = 1
    over_selection: Annotated[float, msgspec.Meta(ge=1)] = 1.0
    round_seconds: NotNegative = 0.0
    server_optimiser: ServerOptimiser = "momentum"
    server_learning_rate: Positive = 1.0
    server_momentum: Decay = 0.0
    server_second_momentum: Decay = 0.99
    server_adaptivity: Positive = 1e-3
    max_delta_norm: Positive = 100.0
    norm_quantile: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.5
    norm_quantile_factor: NotNegative = 0.0
    max_samples: Annotated[int, msgspec.Meta(ge=1, le=MAX_SAMPLES_PER_UPDATE)] = MAX_SAMPLES_PER_UPDATE
    averaged_versions: Annotated[int, msgspec.Meta(ge=1, le=MAX_AVERAGED_VERSIONS)] = 1


USED_BY: dict[str, tuple[str, tuple[str, ...]]] = {
    "cached_staleness": ("strategy", ("aced",)),
    "delay_threshold": ("strategy", ("fadas",)),
    "over_selection": ("strategy", ("fedavg",)),
    "round_seconds": ("strategy", ("fedavg",)),
    "staleness_hinge": ("staleness_weighting", ("hinge",)),
    "staleness_slope": ("staleness_weighting", ("hinge",)),
    "staleness_exponent": ("staleness_weighting", ("polynomial",)),
    "staleness_weighting": ("strategy", ("fedbuff", "ca2fl", "fedasync")),
    "server_momentum": ("server_optimiser", ("momentum", "adagrad", "adam", "yogi", "amsgrad")),
    "server_second_momentum": ("server_optimiser", ("adam", "yogi", "amsgrad")),
    "server_adaptivity": ("server_optimiser", ("adagrad", "adam", "yogi", "amsgrad")),
}
"""Settings that mean something only where another one has one of these values."""


def check_aggregation(plan: AggregationPlan, name: str) -> None:
    """Raise `ConfigurationError` if a setting has no effect, or settings contradict each other; `name` is the file."""
    defaults = AggregationPlan(buffer_size=plan.buffer_size)
    for setting, (other, users) in USED_BY.items():
        if getattr(plan, setting) != getattr(defaults, setting) and getattr(plan, other) not in users:
            raise ConfigurationError(
                f"{name}: aggregation.{setting} is {getattr(plan, setting)!r}, but {other} {getattr(plan, other)!r}"
                f" does not use it; leave it out, or set {other} to {' or '.join(map(repr, users))}"
            )
    if plan.strategy == "fedasync" and (plan.buffer_size > 1 or plan.server_learning_rate > 1):
        raise ConfigurationError(
            f"{name}: aggregation.strategy 'fedasync' mixes in one update at a time: buffer_size must be 1, it is"
            f" {plan.buffer_size}, and server_learning_rate at most 1, it is {plan.server_learning_rate:g}"
        )
    if plan.strategy == "fedavg" and not plan.round_seconds:
        raise ConfigurationError(
            f"{name}: aggregation.strategy 'fedavg' needs a deadline, round_seconds, above 0: one device that goes away"
            " would hold up its round for ever"
        )
    if plan.strategy == "fedavg" and plan.max_staleness > 0:
        raise ConfigurationError(
            f"{name}: aggregation.strategy 'fedavg' works in rounds, and an update counts in its own round alone:"
            f" max_staleness must be 0, it is {plan.max_staleness}; for late updates to count, take 'fedbuff'"
        )
    if not all(math.isfinite(value) for value in msgspec.structs.astuple(plan) if isinstance(value, float)):
        raise ConfigurationError(f"{name}: a setting of aggregation is infinite or not a number")


def check_feedback(feedback: str, plan: AggregationPlan, name: str) -> None:
    """Raise `ConfigurationError` if only one side of a task keeps EF21's estimates; `feedback` is the device's."""
    if (feedback == "ef21") != (plan.strategy == "ef21"):
        raise ConfigurationError(
            f"{name}: update.feedback is {feedback!r} and aggregation.strategy {plan.strategy!r};"
            " with 'ef21' device and coordinator keep the same estimate, so set both to it or neither"
        )
