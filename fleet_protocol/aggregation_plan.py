"""How versions are made from updates: the table `aggregation` of a task, and which settings exclude others."""

import math
from typing import Annotated, Final, Literal

import msgspec

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_AVERAGED_VERSIONS, MAX_ROUND_SECONDS, MAX_SAMPLES_PER_UPDATE, MAX_SETTING
from fleet_protocol.quarantine_plan import QuarantinePlan, check_quarantine
from fleet_protocol.robust_plan import RobustPlan, check_robust
from fleet_protocol.without_effect import UsedBy, check_used

StrategyName = Literal["fedbuff", "base_mean", "fedasync", "fedavg", "ca2fl", "aced", "fadas", "ef21", "posterior"]
ServerOptimiser = Literal["sgd", "momentum", "grafted", "adagrad", "adam", "yogi", "amsgrad"]

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_SETTING)]
Decay = Annotated[float, msgspec.Meta(ge=0, lt=1)]

SMALLEST_LIMIT_OF_NORM = 100.0
"""Of one update, where `max_delta_norm` is left out: what keeps out the absurd. How long honest ones are, devices say
by what they send; small models whose units are large need this much."""

LARGEST_CHANGE = 0.5
"""Likewise, of each parameter on average (root mean square): ten times as much as any honest round was seen to
change."""

SMALLEST_BUFFER = 4
"""Updates in a version where `buffer_size` is left out and few devices take part, or nobody knows yet how many."""

KEEPS_ESTIMATES = ("ef21", "posterior")
"""Strategies for which the coordinator keeps the same sum of updates of each device as the device does."""

MEDIAN = 0.5
"""As a quantile."""


class AggregationPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the coordinator makes a version out of updates (docs/aggregation.md)."""

    buffer_size: Annotated[int, msgspec.Meta(ge=1, le=MAX_SETTING)] | None = None
    """Updates per version; with `fedavg`, reports per round. Left out, a tenth as many as devices take part, or half
    as many as train at one time, 4 to 256 (docs/aggregation.md)."""
    strategy: StrategyName = "fedbuff"
    """Left out: `fedbuff` or, in a task with a [split], `base_mean`. `fedbuff` (Nguyen et al. 2022): the mean of
    a buffer of updates. `base_mean`: likewise, but all updates that began with one version move the model by their mean
    and no further, however many buffers they fill. `ca2fl` (Wang et al. 2024): for devices that see very different
    classes. `aced` (Chang et al. 2025): the mean of every device's last update, if recent. `fadas` (Wang et al. 2024):
    the server's learning rate falls with the largest staleness in the buffer. `fedasync` (Xie et al. 2019): each update
    is mixed in by itself. `ef21` (Richtarik et al. 2021): the other half of the error feedback of that name. `fedavg`
    (McMahan et al. 2017), as a baseline: a version is a synchronous round. `posterior` (Bui et al. 2018): the
    product of a prior and every device's factor and, of weights without a Gaussian, `fedbuff`; a task with [posterior]
    has it, and no other."""
    staleness_weighting: Literal["constant", "polynomial", "hinge"] = "polynomial"
    """What an update with staleness s weighs, times its samples. `constant`: 1. `polynomial`: (1 + s) **
    -`staleness_exponent`. `hinge`: 1 up to `staleness_hinge`, from there 1 / (1 + `staleness_slope` * (s -
    `staleness_hinge`))."""
    staleness_exponent: NotNegative = 0.5
    """Exponent of `polynomial`."""
    staleness_hinge: Count = 4
    """In versions: up to here `hinge` weighs 1."""
    staleness_slope: Positive = 10.0
    """How fast `hinge` falls."""
    max_staleness: Count = 20
    """In versions: an update that is staler is refused. 0 with `fedavg`."""
    cached_staleness: Count = 20
    """In versions: how old the base of a device's last update may be for `aced` to count it."""
    delay_threshold: Count = 1
    """In versions: above this staleness `fadas` lowers its learning rate."""
    over_selection: Annotated[float, msgspec.Meta(ge=1)] = 1.0
    """So many times `buffer_size` devices are asked in a round."""
    round_seconds: Annotated[float, msgspec.Meta(ge=0, le=MAX_ROUND_SECONDS)] = 0.0
    """In seconds: a round ends after this time with those that have reported. `fedavg` needs it above 0."""
    server_optimiser: ServerOptimiser = "momentum"
    """What applies the aggregate: `sgd`, `momentum`, adaptively (Reddi et al. 2021) `adagrad`, `adam`, `yogi`,
    `amsgrad`, or `grafted`: in an adaptive direction, as far as the aggregate goes (Agarwal et al. 2020)."""
    server_learning_rate: Positive = 1.0
    """Factor on the aggregate. Left out: 1 or, in a task with [parts], 0.5 but with `fedavg`."""
    server_momentum: Decay = 0.0
    """Decay of the first moment."""
    server_second_momentum: Decay = 0.99
    """Decay of the second moments."""
    server_adaptivity: Positive = 1e-3
    """The smallest divisor of the adaptive ones; with `grafted`, times the root mean square of all divisors."""
    max_delta_norm: Positive | None = None
    """Largest Euclidean norm of one update; a larger one is refused. Left out: 100 or, for models of more than 40,000
    parameters, half the root of their number."""
    norm_quantile: Annotated[float, msgspec.Meta(gt=0, lt=1)] = MEDIAN
    """Which quantile of the norms of other devices' last updates `norm_quantile_factor` multiplies."""
    norm_quantile_factor: NotNegative = 0.0
    """A longer delta than so many times that quantile is scaled down to it; 0: than twice. Both left out: than
    twice what a tenth of the devices reach, and at most four times the median."""
    max_samples: Annotated[int, msgspec.Meta(ge=1, le=MAX_SAMPLES_PER_UPDATE)] = MAX_SAMPLES_PER_UPDATE
    """A larger declared sample count counts as this one, and at most as 1.5 times the median of other devices."""
    averaged_versions: Annotated[int, msgspec.Meta(ge=1, le=MAX_AVERAGED_VERSIONS)] | None = None
    """`tasks export` writes the mean of so many last versions, and never of more than the newer half. Left out: ten or,
    from the 40th on, a quarter of all, up to 64. Devices train from the newest one."""
    robust: RobustPlan | msgspec.UnsetType = msgspec.UNSET
    """What takes the place of the mean. Left out of `task.json` where there is none, so that others read it too."""
    quarantine: QuarantinePlan | msgspec.UnsetType = msgspec.UNSET
    """What becomes of suspicious updates. Left out of `task.json` likewise."""

    @property
    def suspects(self) -> QuarantinePlan | None:
        """By what updates are held back or tempered, where the task says it (`TaskDescription.suspects`)."""
        named = None if isinstance(self.quarantine, msgspec.UnsetType) else self.quarantine
        return None if named is None or named.action == "off" else named

    @property
    def holds(self) -> bool:
        """Whether suspicious updates are held back until an operator has looked at them."""
        return self.suspects is not None and self.suspects.action == "hold"

    @property
    def rule(self) -> RobustPlan | None:
        """What takes the place of the mean, if anything does."""
        return None if isinstance(self.robust, msgspec.UnsetType) else self.robust

    @property
    def smallest_buffer(self) -> int:
        """Updates in a version, or the fewest where their number follows the fleet."""
        return SMALLEST_BUFFER if self.buffer_size is None else self.buffer_size

    @property
    def names_norm_bound(self) -> bool:
        """Whether the task itself says by what a delta is too long."""
        return self.norm_quantile_factor > 0 or self.norm_quantile != MEDIAN


def largest_delta_norm_of(parameters: int) -> float:
    """Of one update of a model of so many parameters, where the task does not say it."""
    return max(SMALLEST_LIMIT_OF_NORM, LARGEST_CHANGE * math.sqrt(parameters))


USED_BY: Final[UsedBy] = {
    "cached_staleness": ("strategy", ("aced",)),
    "delay_threshold": ("strategy", ("fadas",)),
    "over_selection": ("strategy", ("fedavg",)),
    "round_seconds": ("strategy", ("fedavg",)),
    "staleness_hinge": ("staleness_weighting", ("hinge",)),
    "staleness_slope": ("staleness_weighting", ("hinge",)),
    "staleness_exponent": ("staleness_weighting", ("polynomial",)),
    "staleness_weighting": ("strategy", ("fedbuff", "base_mean", "ca2fl", "fedasync", "posterior")),
    "server_momentum": ("server_optimiser", ("momentum", "adagrad", "adam", "yogi", "amsgrad")),
    "server_second_momentum": ("server_optimiser", ("grafted", "adam", "yogi", "amsgrad")),
    "server_adaptivity": ("server_optimiser", ("grafted", "adagrad", "adam", "yogi", "amsgrad")),
}
"""Settings that mean something only where another one has one of these values."""


def check_aggregation(plan: AggregationPlan, name: str) -> None:
    """Raise `ConfigurationError` if a setting has no effect, or settings contradict each other; `name` is the file."""
    check_used(plan, USED_BY, "aggregation", name)
    if plan.strategy == "fedasync" and (plan.buffer_size != 1 or plan.server_learning_rate > 1):
        given = "left out" if plan.buffer_size is None else plan.buffer_size
        raise ConfigurationError(
            f"{name}: aggregation.strategy 'fedasync' mixes in one update at a time: buffer_size must be 1, it is"
            f" {given}, and server_learning_rate at most 1, it is {plan.server_learning_rate:g}"
        )
    if plan.strategy == "fedavg" and plan.buffer_size is None:
        raise ConfigurationError(
            f"{name}: aggregation.strategy 'fedavg' works in rounds: set buffer_size to how many reports end one"
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
    if plan.rule is not None:
        check_robust(plan, plan.rule, name)
    if not isinstance(plan.quarantine, msgspec.UnsetType):
        check_quarantine(plan, name)


def check_feedback(feedback: str, plan: AggregationPlan, name: str) -> None:
    """Raise `ConfigurationError` if only one side of a task keeps EF21's estimates; `feedback` is the device's."""
    if (feedback == "ef21") != (plan.strategy in KEEPS_ESTIMATES):
        raise ConfigurationError(
            f"{name}: update.feedback is {feedback!r} and aggregation.strategy {plan.strategy!r};"
            " with 'ef21' device and coordinator keep the same estimate, so set both to it or neither"
            + (" (of strategies, 'posterior' keeps one too)" if plan.strategy == "posterior" else "")
        )
