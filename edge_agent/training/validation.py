"""Validation on the device: which samples no round trains on, and whether a round has made them worse. Pure."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.runner import Evaluation
from bundle_runtime.samples import Samples
from fleet_protocol.codec.sparse import FloatVector

Evaluate = Callable[[FloatVector, Samples], Evaluation]
"""How the model with these weights f32[P] does on samples, as training takes them."""

MINIMUM_VALIDATION_SAMPLES = 8
"""Different ones. With fewer, none is kept: their standard error would say nothing, and training needs them more."""
STANDARD_ERRORS = 2.0
"""A round is worse where errors rise by more than so many standard errors of their mean: by chance, one round in forty
that changes nothing does."""

_IDENTITIES = 2**64


@dataclass(frozen=True, slots=True)
class Rise:
    """How much `measure` has risen on `samples` validation samples in a round, and the standard error of that."""

    measure: str
    mean: float
    standard_error: float
    samples: int

    @property
    def is_worse(self) -> bool:
        """Whether it is more than chance makes of it; so is what is no longer finite."""
        return not self.mean <= STANDARD_ERRORS * self.standard_error

    def __str__(self) -> str:
        """In words."""
        return (
            f"{self.measure} on {self.samples} validation samples rose by {self.mean:.3g}, with a standard error of"
            f" {self.standard_error:.3g}; at most {STANDARD_ERRORS:g} of these are taken for chance"
        )


def kept_for_validation(identities: NDArray[np.uint64], share: float) -> NDArray[np.bool_]:
    """Which of the samples with these identities, uint64 [N], are kept for validation, bool [N].

    It is decided sample by sample, by its content: the same sample is on the same side in every round. None is kept
    where these would be too few different ones, or most of all: a device that has a few samples many times must not
    keep the only ones of a class.
    """
    chosen: NDArray[np.bool_] = identities < np.uint64(share * _IDENTITIES)
    is_enough = np.unique(identities[chosen]).size >= MINIMUM_VALIDATION_SAMPLES
    return chosen if is_enough and chosen.sum() <= chosen.size / 2 else np.zeros_like(chosen)


def rise(before: Evaluation, after: Evaluation) -> Rise:
    """From the evaluations of the same samples, at least 2, at the start and at the end of a round.

    Of classes, wrong answers count: a balanced loss lets the plain one rise in an honest round on few classes. The
    difference is taken sample by sample, so that what makes one sample harder than another falls out.
    """
    measure = "the loss" if after.correct is None else "the share of wrong answers"
    risen = _errors(after) - _errors(before) if np.isfinite(after.losses).all() else np.array([np.inf, np.inf])
    mean = float(np.add.reduce(risen)) / risen.size
    with np.errstate(invalid="ignore"):
        squares = np.square(risen - mean)
    error = math.sqrt(float(np.add.reduce(squares)) / (risen.size - 1)) / math.sqrt(risen.size)
    return Rise(measure, mean, error, after.losses.size)


def is_worse(before: FloatVector, after: FloatVector, samples: Samples, evaluate: Evaluate) -> bool:
    """Whether a model with the weights `after` is worse on validation samples than one with `before`, both f32[P];
    without samples nobody knows.
    """
    return len(samples) > 0 and rise(evaluate(before, samples), evaluate(after, samples)).is_worse


def _errors(evaluation: Evaluation) -> NDArray[np.float64]:
    errors = evaluation.losses if evaluation.correct is None else 1 - evaluation.correct
    return errors.astype(np.float64)
