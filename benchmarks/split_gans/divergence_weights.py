"""What devices of a cluster weigh by how unlike the others they are. Pure.

    weight_k = n_k exp(-a s_k) / sum_j n_j exp(-a s_j)

n_k is how many samples device k has, and s_k the Kullback-Leibler divergence between P, the device's distribution over
the values of an activation in the middle of the model, and Q, the mean of the other devices' (Tawfilis et al. 2025,
arXiv 2507.12979). The distribution is the softmax of the device's mean activation. It is worked with as logarithms:
so no activation, however absurd, makes a divergence infinite.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from broker_coordinator.aggregation.clusters import Activation, unusable

Direction = Literal["of_device_from_others", "of_others_from_device"]
"""KL(P || Q), as the paper has it, or KL(Q || P), as its published code computes it."""
Logarithms = NDArray[np.float64]


def divergence_weights(
    activations: Mapping[str, Activation],
    samples: Mapping[str, float],
    scale: float = 1.0,
    direction: Direction = "of_device_from_others",
) -> dict[str, float]:
    """The weight of each device of one cluster that `samples` names, at least 0 and 1 together; all 0 where nobody has
    samples. `scale` is a, 0 for weights by samples alone. A device without an activation that can be used weighs
    nothing where another one has one.

    Raises:
        ValueError: a number of samples, or the scale, is negative or not finite.
    """
    for name, value in {"the scale": scale, **samples}.items():
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{name}: {value} is to be a finite number from 0 on, in weights by divergence")
    counted = sorted(name for name in samples if samples[name] > 0)
    if not counted:
        return dict.fromkeys(samples, 0.0)
    given = {name: activations[name] for name in counted if name in activations}
    for strange in unusable(given):
        del given[strange]
    counted = list(given) or counted
    found = divergences(given, direction)
    logarithms = np.array([np.log(samples[name]) - scale * found.get(name, 0.0) for name in counted])
    shares = np.exp(_log_softmax(logarithms)).tolist()
    return dict.fromkeys(samples, 0.0) | dict(zip(counted, shares, strict=True))


def divergences(activations: Mapping[str, Activation], direction: Direction) -> dict[str, float]:
    """The divergence, in nats, between each device's distribution and the mean of the others'; 0 of a device alone.

    The activations are finite vectors of one length.
    """
    if len(activations) < 2:
        return dict.fromkeys(activations, 0.0)
    names = sorted(activations)
    own = np.array([_log_softmax(np.asarray(activations[name], np.float64)) for name in names])
    return {
        name: _divergence(own[place], _log_mean(np.delete(own, place, axis=0)), direction)
        for place, name in enumerate(names)
    }


def _divergence(own: Logarithms, others: Logarithms, direction: Direction) -> float:
    first, second = (own, others) if direction == "of_device_from_others" else (others, own)
    return max(0.0, float(np.exp(first) @ (first - second)))


def _log_softmax(values: Logarithms) -> Logarithms:
    shifted = values - values.max()
    return np.array(shifted - np.log(np.exp(shifted).sum()))


def _log_mean(rows: Logarithms) -> Logarithms:
    """The logarithms of the mean of distributions [N, V], given as logarithms."""
    largest = rows.max(axis=0)
    return np.array(largest + np.log(np.exp(rows - largest).mean(axis=0)))
