"""What a round computes for a task whose head is solved: sums over the features of all stored samples. Pure.

What was sent last is remembered where other tasks keep their error feedback: counts and sums of features of each class,
float32. A round sends nothing while these have hardly moved.
"""

import numpy as np
from numpy.typing import NDArray

from edge_agent.training.round import DivergedError, Earlier
from edge_agent.training.stored_samples import StoredSamples
from edge_agent.worker.contract import TrainingResult, Withheld
from fleet_protocol.codec import ClassStatistics
from fleet_protocol.solved_head import SolvedHead
from fleet_protocol.task_description import TaskDescription


def measure_features(
    stored: StoredSamples, plan: SolvedHead, task: TaskDescription, earlier: Earlier
) -> TrainingResult | Withheld:
    """The statistics of all samples, those that other tasks would keep for validation too; or why they are not sent.

    They are always sent where some that were sent before came back.

    Raises:
        DivergedError: a feature is larger than the task takes.
    """
    samples = [part for part in (stored.training, stored.validation) if len(part)]
    features = np.concatenate([part.inputs.reshape(len(part), -1) for part in samples])
    labels = np.concatenate([part.labels for part in samples])
    if not (largest := float(np.abs(features).max())) <= plan.largest_feature:
        raise DivergedError(
            f"a feature of {largest:g} exceeds largest_feature ({plan.largest_feature:g}); nothing is sent: correct the"
            " samples, or raise largest_feature in [solved_head] of task.toml"
        )
    newest = max(part.newest for part in samples)
    statistics = ClassStatistics.of(features, labels, task.label.classes, plan.solver)
    sums = _sums(statistics)
    moved = _share_moved(sums, earlier.residual)
    if moved <= plan.send_again and not earlier.returned:
        words = f"features have moved by {moved:.2g} of what was sent; send_again is {plan.send_again:g}"
        return Withheld("unchanged", words, newest, 0.0)
    return TrainingResult(
        packed=b"",
        residual=sums.tobytes(),
        samples=statistics.samples,
        steps=0,
        trained_through=newest,
        loss=0.0,
        feature_statistics=statistics.encode(plan.precision, plan.solver),
    )


def _sums(statistics: ClassStatistics) -> NDArray[np.float32]:
    """Counts and sums of features of each class, f32[C * (1 + D)]."""
    counts = statistics.counts[:, None]
    return np.hstack([counts, counts * statistics.means]).astype("<f4").ravel()


def _share_moved(sums: NDArray[np.float32], sent: bytes) -> float:
    """By which share of their norm the sums differ from those that were `sent`; infinite where there are none."""
    if len(sent) != sums.nbytes:
        return float("inf")
    before = np.frombuffer(sent, "<f4").astype(np.float64)
    return float(np.linalg.norm(sums - before) / np.linalg.norm(sums))
