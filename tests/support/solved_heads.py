"""Devices with features around class centres, their statistics, and the ridge regression of all samples by hand."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker_coordinator.aggregation.solved_heads import Head, most_counted, pooled, solve
from fleet_protocol.codec import ClassStatistics, decode_class_statistics
from fleet_protocol.kinds import FEATURE_STATISTICS, FeatureStatistics, encode_payload
from fleet_protocol.limits import MAX_SAMPLES_PER_UPDATE
from fleet_protocol.solved_head import SolvedHead
from tests.support.bundles import TASK
from tests.support.device import SigningDevice

Table = NDArray[np.float64]


@dataclass(frozen=True)
class Featured:
    """Samples of one device: `features` [N, D] and `labels` int64[N]."""

    features: Table
    labels: NDArray[np.int64]

    def statistics(self, classes: int, plan: SolvedHead) -> ClassStatistics:
        """As they arrive at the coordinator."""
        sent = ClassStatistics.of(self.features, self.labels, classes, plan.solver).encode(plan.precision, plan.solver)
        size = self.features.shape[1]
        return decode_class_statistics(sent, classes, size, plan.precision, plan.solver)

    def message(self, device: SigningDevice, sequence: int, classes: int, plan: SolvedHead, **header: int) -> bytes:
        """The signed statistics of the tiny task."""
        packed = ClassStatistics.of(self.features, self.labels, classes, plan.solver).encode(
            plan.precision, plan.solver
        )
        payload = encode_payload(FeatureStatistics(packed))
        return device.sign(FEATURE_STATISTICS, payload, sequence=sequence, task=TASK, **header)


def fleet(
    seed: int, devices: int, *, classes: int = 4, size: int = 8, classes_each: int | None = None
) -> Iterator[Featured]:
    """So many devices with 2 to 40 samples within -1 to 1, each of `classes_each` classes or of all."""
    generator = np.random.default_rng(seed)
    centres = generator.uniform(-0.6, 0.6, (classes, size))
    for number in range(devices):
        own = np.arange(number, number + (classes_each or classes)) % classes
        labels = generator.choice(own, generator.integers(2, 40))
        yield Featured((centres[labels] + generator.uniform(-0.4, 0.4, (labels.size, size))), labels)


def head_of(fleet: Sequence[Featured], plan: SolvedHead, classes: int = 4) -> Head:
    """The head that a coordinator solves."""
    by_device = {f"pi-{number}": device.statistics(classes, plan) for number, device in enumerate(fleet)}
    return solve(pooled(by_device, plan.solver, most_counted(by_device, plan, MAX_SAMPLES_PER_UPDATE)), plan)


def pooled_ridge(fleet: Sequence[Featured], ridge: float, classes: int = 4) -> Table:
    """Weights and bias [C, D + 1] by least squares on all samples together, as a textbook has it."""
    features = np.concatenate([device.features for device in fleet])
    targets = np.eye(classes)[np.concatenate([device.labels for device in fleet])]
    table = np.hstack([features, np.ones((len(features), 1))])
    penalty = np.sqrt(ridge) * np.eye(table.shape[1])[:-1]
    below = np.zeros((len(penalty), classes))
    found = np.linalg.lstsq(np.vstack([table, penalty]), np.vstack([targets, below]), rcond=None)[0]
    return found.T
