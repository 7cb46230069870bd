"""What leaves a device in a step, after the task's defences: noise on activations, a limit on each row's gradient."""

import numpy as np

from bundle_runtime.blocks import Floats
from fleet_protocol.codec.activations import pack_activations, pack_gradient
from fleet_protocol.split_plan import Passing


def packed_activations(values: Floats, plan: Passing, generator: np.random.Generator) -> bytes:
    """Activations f32[N, ...] with the plan's noise. The helper must not know `generator`: with it, it could subtract
    the noise.
    """
    if plan.activation_noise:
        scale = np.float32(plan.activation_noise * values.std(dtype=np.float64))
        values = values + scale * generator.standard_normal(values.shape, dtype=np.float32)
    return pack_activations(values, plan.activations)


def packed_gradient(gradient: Floats, plan: Passing, generator: np.random.Generator) -> bytes:
    """A gradient f32[N, ...] of the mean loss: each row within the plan's limit, and of it what the plan selects."""
    if plan.gradient_clip:
        gradient = clipped_rows(gradient, plan.gradient_clip)
    return pack_gradient(gradient, plan.gradients, plan.gradient_selection, plan.gradient_keep, generator)


def clipped_rows(gradient: Floats, limit: float) -> Floats:
    """The gradient f32[N, ...] of a mean over N losses; of each sample's own loss its Euclidean norm is at most `limit`
    (Abadi et al. 2016, "Deep learning with differential privacy", algorithm 1).
    """
    rows = len(gradient)
    norms = rows * np.linalg.norm(gradient.reshape(rows, -1).astype(np.float64), axis=1)
    shrink = np.minimum(1, limit / np.maximum(norms, limit)).astype(np.float32)
    clipped: Floats = gradient * shrink.reshape(-1, *[1] * (gradient.ndim - 1))
    return clipped
