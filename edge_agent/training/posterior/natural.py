"""Gaussians over weights in natural parameters, which add where densities are multiplied. Pure.

    precision = 1 / deviation^2, here in those of the prior;  weighted mean = precision * mean

A message has both, precisions times the prior's deviation: a precision that is off by one unit then moves a mean,
usually as large as that deviation, as far as a weighted mean that is off by one. A version has means in place of
weighted means. Vectors are of the H weights that have a Gaussian.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.codec.sparse import FloatVector

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Natural:
    """A Gaussian, or a factor of one: two vectors f64[H]. `prior` are deviations f64[H] of the prior."""

    weighted_mean: Vector
    precision: Vector

    @classmethod
    def of_version(cls, mean: FloatVector, scaled: FloatVector, prior: Vector) -> "Natural":
        """That of a version's means and precisions, f32[H]; rounding may have brought a precision below the prior's."""
        precision = np.maximum(scaled / prior, 1)
        return cls(precision * mean, precision)

    @classmethod
    def of_factor(cls, told: Vector, prior: Vector) -> "Natural":
        """That of a factor as it is told, f64[2H]; what rounding has made of a precision near 0 is none."""
        weighted_mean, scaled = np.split(told, 2)
        return cls(weighted_mean, np.maximum(scaled / prior, 0))

    def told(self, prior: Vector) -> Vector:
        """A factor as it is told, f64[2H]."""
        return np.concatenate([self.weighted_mean, prior * self.precision])

    @property
    def mean(self) -> Vector:
        """Of a Gaussian, f64[H]."""
        return self.weighted_mean / self.precision

    def deviation(self, prior: Vector) -> Vector:
        """Of a Gaussian, f64[H]."""
        deviation: Vector = prior / np.sqrt(self.precision)
        return deviation


def cavity_of(whole: Natural, factor: Natural) -> Natural:
    """The Gaussian `whole` without a device's `factor`, and never less precise than the prior.

    Where a factor is more precise than all that the whole has learned, the whole does not hold all of it yet: only so
    much of its weighted mean is taken out.
    """
    learned = whole.precision - 1
    held = np.divide(learned, factor.precision, out=np.sign(learned), where=factor.precision > learned)
    return Natural(
        whole.weighted_mean - np.where(factor.precision > learned, held, 1) * factor.weighted_mean,
        np.maximum(whole.precision - factor.precision, 1),
    )
