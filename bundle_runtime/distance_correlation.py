"""How much activations tell of the samples that they are made from, and the gradient that makes them tell less.

Distance correlation (Székely, Rizzo & Bakirov 2007) is 0 where the two are independent, and 1 where one is a scaled
and turned copy of the other. NoPeek (Vepakomma et al. 2020) adds it to the loss of split learning. It depends on
samples and activations alone, so no graph holds it: its gradient is added to the one that comes back from the helper.
"""

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.scaling import MOST_DEVIATIONS
from fleet_protocol.task_description import TaskDescription

Floats = NDArray[np.float32]
Matrix = NDArray[np.float64]


def penalty_gradient(task: TaskDescription, weight: float, samples: Floats, activations: Floats) -> Floats:
    """The gradient, by the activations that leave a device first, of `weight` times their distance correlation.

    Samples f32[N, ...] are as training takes them; they count as the model sees them, scaled. Activations f32[N, ...]
    and the gradient have one shape.
    """
    rows = len(samples)
    _, gradient = distance_correlation(_scaled(task, samples.reshape(rows, -1)), activations.reshape(rows, -1))
    return (weight * gradient).reshape(activations.shape).astype(np.float32)


def distance_correlation(samples: NDArray[np.floating], values: NDArray[np.floating]) -> tuple[float, Matrix]:
    """Of samples [N, D] and values [N, M], and its gradient by the values, float64[N, M]; 0 where either is constant.

    With a and b the distances between rows, and A and B these less the means of their rows and columns, equations 2.8
    to 2.10 of the first paper. The covariance, the mean of A * B, is that of A * b too, as A is centred already.
    """
    of_samples, values = _centred(_distances(samples)), values.astype(np.float64)
    distances = _distances(values)
    of_values = _centred(distances)
    covariance = float((of_samples * of_values).mean())
    own_variance = float((of_values * of_values).mean())
    scale = np.sqrt(float((of_samples * of_samples).mean()) * own_variance)
    if covariance <= 0 or scale == 0:
        return 0.0, np.zeros_like(values)
    correlation = np.sqrt(covariance / scale)
    by_distances = (of_samples - covariance / own_variance * of_values) / (2 * correlation * scale * distances.size)
    pulls = 2 * np.divide(by_distances, distances, out=np.zeros_like(distances), where=distances > 0)
    return float(correlation), pulls.sum(axis=1, keepdims=True) * values - pulls @ values


def _scaled(task: TaskDescription, samples: Floats) -> Matrix:
    """Samples f32[N, values] on the task's scale, a missing value as the mean: what its graphs do to them."""
    values: Matrix = samples.astype(np.float64)
    if (scale := task.scaling.inputs) is None:
        return values
    start = 0
    for block in task.input_blocks:
        columns = slice(start, start + block.columns)
        mean, deviation = np.array(scale.mean[columns]), np.array(scale.deviation[columns])
        given = values[:, block.place]
        standard = (np.where(np.isnan(given), mean, given) - mean) / deviation
        values[:, block.place] = np.clip(standard, -MOST_DEVIATIONS, MOST_DEVIATIONS)
        start += block.columns
    return values


def _distances(rows: NDArray[np.floating]) -> Matrix:
    """Euclidean, between each two rows: [N, N]."""
    shifted = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)  # so that squares lose no digits
    squares = (shifted * shifted).sum(axis=1)
    squared: Matrix = squares[:, None] + squares - 2 * (shifted @ shifted.T)
    np.fill_diagonal(squared, 0)
    return np.sqrt(np.maximum(squared, 0))


def _centred(distances: Matrix) -> Matrix:
    means = distances.mean(axis=0)
    centred: Matrix = distances - means - means[:, None] + means.mean()
    return centred
