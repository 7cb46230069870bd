"""Values of a graph beside those of torch: the first that differs by more than rounding explains."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fleet_protocol.errors import ConfigurationError
from workbench.export.graphs.gradients import STATE
from workbench.export.trials.torch_reference import FEW_RUNS, MANY_RUNS, Function, Reference, reference

LEARNING_RATE = 0.125
"""Of the steps that are compared: a power of 2, which rounds nothing."""
DIVIDING_OPTIMISERS = ("adam", "adamw")
"""They divide a gradient by its size, and so its rounding by the size of that where the gradient is 0."""
MOST_STEPS_APART = 4
"""Learning rates that such an optimiser can move a weight in one step because of rounding, with some to spare."""
FIRST_MOMENT = f"{STATE}0"
ONE = "a batch of one"


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a graph and torch part: by how much, and how much of it rounding explains."""

    file: str
    batch: str
    value: str
    largest: float
    tolerance: float
    place: int | None = None
    """In the flat value."""

    def __str__(self) -> str:
        return (
            f"{self.file}: with {self.batch}, {self.value} differs from torch's by up to {self.largest:.2g}, of which"
            f" rounding explains {self.tolerance:.2g}"
        )


def first_difference(  # noqa: PLR0917 - one row of a table of results
    file: str,
    batch: str,
    names: Sequence[str],
    found: Sequence[NDArray[np.generic]],
    function: Function,
    inputs: Sequence[Tensor],
    optimiser: str = "",
) -> Difference | None:
    """The first result that differs, also from what more runs of torch take for rounding."""
    difference = None
    for runs in (FEW_RUNS, MANY_RUNS):
        try:
            expected = reference(function, inputs, runs)
        except ValueError as error:  # batch normalisation of a single value
            if batch == ONE:
                return None
            raise ConfigurationError(
                f"{file}: torch refuses to train with {batch}: {error}; write a batch_size of 2 or more in [training]"
            ) from error
        difference = next(_differences(file, batch, names, found, expected, optimiser), None)
        if difference is None:
            return None
    return difference


def _differences(  # noqa: PLR0917 - one row of a table of results
    file: str,
    batch: str,
    names: Sequence[str],
    found: Sequence[NDArray[np.generic]],
    expected: Reference,
    optimiser: str,
) -> Iterator[Difference]:
    for place, name in enumerate(names):
        exact, ours = expected.exact[place], found[place].astype(np.float64)
        tolerance: NDArray[np.float64] | float = expected.tolerance(place)
        if name == "weights" and optimiser in DIVIDING_OPTIMISERS:
            first = names.index(FIRST_MOMENT)
            share = expected.tolerance(first) / np.maximum(np.abs(expected.exact[first]), np.finfo(np.float64).tiny)
            tolerance = tolerance + MOST_STEPS_APART * LEARNING_RATE * np.minimum(share, 1)
        if ours.shape != exact.shape:
            yield Difference(file, batch, f"{name} {ours.shape} instead of {exact.shape}", np.inf, 0.0)
            continue
        apart = np.where(np.isfinite(exact) | np.isfinite(ours), np.abs(ours - exact), 0.0)
        apart = np.where(np.isnan(apart), np.inf, apart)
        if (apart > tolerance).any():
            worst = int(np.argmax(apart - tolerance))
            allowed = float(np.broadcast_to(tolerance, apart.shape).flat[worst])
            yield Difference(file, batch, name, float(apart.flat[worst]), allowed, worst)
