"""What is reported of a round whose loss or weights are no longer finite."""

from dataclasses import dataclass

import numpy as np

from bundle_runtime.samples import Samples
from edge_agent.training.engine import BatchPlan
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.remedies import STEADIER_TRAINING


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first bad step, counted from 0, and its mini-batch. `labels` is a count per class, or least and greatest.

    `loss_before` is the last finite loss, NaN if there was none. It stays on the device, as it reveals something of its
    data.
    """

    step: int
    steps: int
    loss: float
    loss_before: float
    learning_rate: float
    rows: int
    input_minimum: float
    input_maximum: float
    input_mean: float
    finite_share: float
    labels: str

    def __str__(self) -> str:
        """Every field, in one sentence."""
        return (
            f"training diverged at step {self.step} of {self.steps}: loss {self.loss:g} after {self.loss_before:g}"
            f" (learning rate {self.learning_rate:g}); its batch: {self.rows} samples, inputs"
            f" {self.input_minimum:g} to {self.input_maximum:g}, mean {self.input_mean:g},"
            f" {self.finite_share:.0%} finite, labels {self.labels}; {STEADIER_TRAINING}"
        )


def divergence(
    losses: FloatVector, trained: FloatVector, samples: Samples, plan: BatchPlan, learning_rate: float
) -> Divergence | None:
    """What went wrong, or None where every loss and every weight is finite.

    Weights that overflow in the very last step leave no bad loss behind: then it is that step.
    """
    finite = np.isfinite(losses)
    if finite.all() and np.isfinite(trained).all():
        return None
    step = losses.size - 1 if finite.all() else int(np.argmin(finite))
    batch = min(step, len(plan.rows) - 1)  # a batch by itself may be taken twice
    rows = plan.rows[batch][plan.mask[batch] > 0]
    inputs = samples.inputs[rows]
    values = inputs[np.isfinite(inputs)]
    return Divergence(
        step=step,
        steps=losses.size,
        loss=float(losses[step]),
        loss_before=float(losses[step - 1]) if step else float("nan"),
        learning_rate=learning_rate,
        rows=rows.size,
        input_minimum=float(values.min(initial=np.inf)),
        input_maximum=float(values.max(initial=-np.inf)),
        input_mean=float(values.mean()) if values.size else float("nan"),
        finite_share=values.size / max(inputs.size, 1),
        labels=_seen(samples.labels[rows]),
    )


def _seen(labels: np.ndarray) -> str:
    if labels.dtype != np.int64:
        return f"{labels.min():g} to {labels.max():g}" if labels.size else "none"
    classes, counts = np.unique(labels, return_counts=True)
    return ", ".join(f"{count} of {label}" for label, count in zip(classes, counts, strict=True))
