"""A head that the coordinator solves from what devices say of their features: the table `[solved_head]` of a task."""

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import KIB, MAX_UPDATE_BYTES
from fleet_protocol.sample_schema import LabelSchema
from fleet_protocol.without_effect import UsedBy, check_used

FEATURE_STATISTICS_NAME = "feature statistics"
"""The kind of payload that the versions of such a task are made from."""

Solver = Literal["ridge", "means", "gaussian"]
Precision = Literal["float64", "float32", "float16", "int8"]
NUMBER_BYTES: Final[dict[Precision, int]] = {"float64": 8, "float32": 4, "float16": 2, "int8": 1}
MAX_STATISTICS = MAX_UPDATE_BYTES - 4 * KIB
"""Bytes of feature statistics: an envelope, and a box, fit around them."""


class SolvedHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the last layer follows from sums over devices' features (docs/one-message.md)."""

    solver: Solver = "ridge"
    """`ridge`: exactly the ridge regression of all devices' samples together (AFL, He et al. 2025; Fed3R, Fani et al.
    2024), from class means and one matrix. `means`: linear discriminant analysis from class means alone, whose spread
    over the devices stands for the covariance (FedCOF, Goswami et al. 2025). `gaussian`: a softmax head trained on
    features that the coordinator draws from class means and variances (GH-OFL)."""
    ridge: Annotated[float, msgspec.Meta(ge=1e-6, le=1e12)] = 1.0
    """For `ridge`: what is added to the diagonal of the features' matrix, in their unit squared; for `gaussian`: the
    penalty on squared weights, in a sum over all drawn features."""
    shrinkage: Annotated[float, msgspec.Meta(ge=0.01, le=1)] = 0.5
    """For `means`: this share of the covariance is that of features which are independent and vary alike."""
    draws: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 200
    """For `gaussian`: features that are drawn of each class."""
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 0
    """For `gaussian`: of the drawing."""
    precision: Precision = "float32"
    """How numbers travel. `float64`: the head is that of pooled samples to more than six digits. The others take a
    half, a quarter and an eighth of the bytes. `int8` is not for `ridge`, whose matrix would be mostly rounding."""
    largest_feature: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 1000.0
    """The largest magnitude of a feature. A device with a larger one sends nothing, and statistics that tell of larger
    ones are refused."""
    most_times_median: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 3.0
    """A device counts as at most so many times the samples of the usual one, which is the median of all devices'
    samples, whatever it says; 0: as all that it says. Where none has more, no bit of the head depends on it."""
    send_again: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.05
    """A device sends again once its sums of features have moved by this share of their norm; 0: once anything has."""
    longest_wait_seconds: Annotated[float, msgspec.Meta(gt=0, le=7 * 24 * 3600)] = 60.0
    """After this time a version is made of what has come, although its buffer is not full."""


USED_BY: Final[UsedBy] = {
    "ridge": ("solver", ("ridge", "gaussian")),
    "shrinkage": ("solver", ("means",)),
    "draws": ("solver", ("gaussian",)),
    "seed": ("solver", ("gaussian",)),
}
"""Settings that mean something only where another one has one of these values."""


def largest_statistics_bytes(head: SolvedHead, classes: int, features: int) -> int:
    """Of a device that has all classes."""
    means = classes * features
    spread = {"means": 0, "gaussian": means, "ridge": features * (features + 1) // 2}[head.solver]
    return 5 * classes + 2 + NUMBER_BYTES[head.precision] * (means + spread)


def check_solved_head(
    head: SolvedHead, label: LabelSchema, features: int, parameters: Sequence[Sequence[int]], name: str
) -> None:
    """Raise `ConfigurationError` where a task can't have this head; `name` is the file.

    A sample has so many `features`; `parameters` are the shapes of what trains.
    """
    check_used(head, USED_BY, "solved_head", name)
    if label.kind != "class":
        raise ConfigurationError(
            f"{name}: [solved_head] tells classes apart, and label.kind is {label.kind!r}; leave [solved_head] out"
        )
    wanted = [[label.classes, features], [label.classes]]
    if (found := [list(shape) for shape in parameters]) != wanted:
        raise ConfigurationError(
            f"{name}: [solved_head] needs one nn.Linear({features}, {label.classes}) on the features, with a bias, and"
            f" nothing else that trains: tensors of {wanted}, in this order; found are {found}; name what stands before"
            " it as [backbone] module, or leave it out of `trainable`"
        )
    if head.solver == "ridge" and head.precision == "int8":
        raise ConfigurationError(
            f"{name}: [solved_head] with the solver 'ridge' can't have the precision 'int8', which leaves a matrix of"
            " rounding errors; take 'float16', or the solver 'means'"
        )
    if (size := largest_statistics_bytes(head, label.classes, features)) > MAX_STATISTICS:
        raise ConfigurationError(
            f"{name}: what a device says of {features} features takes {size} bytes with the solver {head.solver!r} in"
            f" {head.precision}, more than fit into one message ({MAX_STATISTICS}); take a smaller `precision`, the"
            " solver 'means', or a backbone with fewer features"
        )
