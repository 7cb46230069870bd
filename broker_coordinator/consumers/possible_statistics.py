"""Whether samples could have what a device says of its features: bounds, variances, and a covariance matrix. Pure."""

import math
from typing import Final

import numpy as np

from fleet_protocol.codec import ClassStatistics
from fleet_protocol.codec.class_statistics import Table, rounding_norm, rounding_of
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.limits import MAX_SAMPLES_PER_UPDATE
from fleet_protocol.solved_head import Precision, SolvedHead
from fleet_protocol.task_description import TaskDescription

STORED_ROUNDING: Final = float(np.finfo(np.float32).eps)
"""By what share a stored sample may be beyond a bound that it was checked by as a float64."""
ARITHMETIC_ROUNDING: Final = float(np.finfo(np.float64).eps)


def check_possible(statistics: ClassStatistics, task: TaskDescription, plan: SolvedHead) -> None:
    """Refuse sums that no samples within the task's bounds have; so none of them overflows either.

    Raises:
        ProtocolError: `OUT_OF_BOUNDS`, with what is impossible.
    """
    samples = statistics.samples
    if not 1 <= samples <= MAX_SAMPLES_PER_UPDATE:
        raise _impossible(f"{samples} samples; allowed are 1 to {MAX_SAMPLES_PER_UPDATE}")
    lowest = max(-plan.largest_feature, task.trained_input.minimum)
    highest = min(plan.largest_feature, task.trained_input.maximum)
    rounding = rounding_of(plan.precision)
    slack = 2 * max(rounding, STORED_ROUNDING) * max(abs(lowest), abs(highest))
    means = statistics.means[statistics.present]
    if means.min() < lowest - slack or means.max() > highest + slack:
        raise _impossible(
            f"class means from {means.min():g} to {means.max():g}; features are from {lowest:g} to {highest:g}"
            " (largest_feature, and the bounds of what is trained on)"
        )
    most = (highest - lowest + 2 * slack) ** 2 / 4  # half of the samples at either end: Popoviciu 1935
    most *= 1 + rounding
    if plan.solver == "gaussian":
        _check_variances(statistics, most)
    if plan.solver == "ridge":
        _check_covariance(statistics, most, plan.precision)


def _check_variances(statistics: ClassStatistics, most: float) -> None:
    variances = statistics.spread
    if variances.min() < 0 or variances.max() > most:
        raise _impossible(f"variances from {variances.min():g} to {variances.max():g}; features can have 0 to {most:g}")
    alone = statistics.counts == 1
    if variances[alone].any():
        raise _impossible("a class of one sample has a variance")


def _check_covariance(statistics: ClassStatistics, most: float, precision: Precision) -> None:
    """It is positive semi-definite, and of no higher rank than its samples allow, up to rounding."""
    covariance = statistics.covariance
    variances = np.diagonal(covariance)
    if variances.min() < 0 or variances.max() > most:
        raise _impossible(f"variances from {variances.min():g} to {variances.max():g}; features can have 0 to {most:g}")
    rank = min(len(covariance), statistics.samples - int(statistics.present.sum()))
    if not rank and covariance.any():
        raise _impossible("classes of one sample each have a covariance")
    rounding = _rounding(covariance, statistics.samples, precision)
    if _least_rank(covariance, rounding) > rank:
        raise _impossible(
            f"a covariance spread over more directions than {statistics.samples} samples of"
            f" {int(statistics.present.sum())} classes have: {rank}"
        )
    if not _is_positive(covariance, rounding):
        raise _impossible(f"the covariance of {len(covariance)} features is not positive semi-definite")


def _rounding(covariance: Table, samples: int, precision: Precision) -> float:
    """At most the Frobenius norm of what rounding made of an exact covariance, and of the factorisation's own error:
    that of what travels, and for sums of N products and the Cholesky factors of D features, no more than (N + D)
    roundings of each sqrt(C_ii C_jj), whose norm is the trace (Higham 2002, equation 3.5 and theorem 10.5).
    """
    sums = (samples + len(covariance)) * ARITHMETIC_ROUNDING * float(np.trace(covariance))
    return rounding_norm(covariance, precision) + sums


def _least_rank(covariance: Table, rounding: float) -> float:
    """No matrix of a lower rank is so near: as r eigenvalues have (sum of them)^2 <= r (sum of their squares) by
    Cauchy and Schwarz, trace^2 <= r |C|_F^2. The trace is off by at most sqrt(D) times the norm of what rounding took.
    """
    trace = float(np.trace(covariance)) - math.sqrt(len(covariance)) * rounding
    norm = float(np.linalg.norm(covariance)) + rounding
    return (trace / norm) ** 2 if trace > 0 else 0.0


def _is_positive(covariance: Table, rounding: float) -> bool:
    """No eigenvalue is more negative than rounding makes one: it moves none by more than its norm (Weyl 1912)."""
    shifted = covariance + (rounding + float(np.finfo(np.float64).tiny)) * np.eye(len(covariance))
    try:
        return bool(np.isfinite(np.linalg.cholesky(shifted)).all())
    except np.linalg.LinAlgError:
        return False


def _impossible(what: str) -> ProtocolError:
    return ProtocolError(Reason.OUT_OF_BOUNDS, f"feature statistics that no samples have: {what}")
