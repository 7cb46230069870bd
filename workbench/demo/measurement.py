"""Accuracy of versions on the held-out digits, and what the same model reaches on the pooled data."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import BundleRunner, bundle_paths
from edge_agent.training.engine import Rates, plan_batches
from edge_agent.training.onnx_step import OnnxStepEngine
from fleet_protocol.bundle_files import WEIGHTS_FILE
from fleet_protocol.codec import read_model, read_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.parameter import Parameter
from fleet_protocol.task_description import TaskDescription
from workbench.data.digits import FleetData
from workbench.data.head_rounds import Contest, Rounds
from workbench.report.privacy_told import Told, told_so_far

ROUNDS = 20


class Measured(Protocol):
    """What a monitor asks of whatever judges versions; `clusters` are those that devices are in by now, by name."""

    @property
    def parameters(self) -> int: ...
    @property
    def tensors(self) -> Sequence[Parameter]: ...
    @property
    def dense_bytes(self) -> int: ...
    @property
    def held_out_samples(self) -> int: ...
    @property
    def averaged_versions(self) -> int | None: ...
    @property
    def is_solved(self) -> bool: ...
    def accuracy(self, version: bytes | None, clusters: Mapping[str, int], /) -> float: ...
    def central_accuracy(self, updates: int, /) -> float: ...
    def told(self, *, rounds: int, versions: int, clip: float | None) -> list[Told]: ...
    def rounds(self) -> Rounds | None: ...


class Measurement:
    """Runs a bundle's graphs on one fleet's data."""

    def __init__(self, bundle: Path, description: TaskDescription, data: FleetData) -> None:
        self._bundle = bundle
        self._description = description
        self._data = data
        self._runner = BundleRunner(description, bundle_paths(bundle, description))
        self._held_out = self._runner.featured(data.held_out)

    @property
    def parameters(self) -> int:
        """Length of the flat weight vector."""
        return self._description.parameter_count

    @property
    def tensors(self) -> Sequence[Parameter]:
        """What a version holds."""
        return self._description.version.parameters

    @property
    def dense_bytes(self) -> int:
        """What one update would cost as float32 weights."""
        return 4 * self.parameters

    @property
    def held_out_samples(self) -> int:
        """Digits that no device has."""
        return len(self._data.held_out)

    @property
    def averaged_versions(self) -> int | None:
        """How many versions the model to use is the mean of, where the task says it."""
        return self._description.averaged_versions

    @property
    def is_solved(self) -> bool:
        """Whether the model's head is solved, from messages that are of no version, and so never stale."""
        return self._description.solved_head is not None

    @property
    def initial_weights(self) -> bytes:
        """The untrained model, as a safetensors file."""
        return (self._bundle / WEIGHTS_FILE).read_bytes()

    def accuracy(self, version: bytes | None, _clusters: Mapping[str, int]) -> float:
        """The fraction of held-out digits that a version (safetensors) reads right, or the untrained model without one;
        of a task with clusters, that of devices without one.
        """
        if version is None:
            return self._accuracy(read_weights(self.initial_weights, self._description.parameters))
        return self._accuracy(read_model(version, self._description))

    def central_accuracy(self, updates: int) -> float:
        """The same for the same model trained on the pooled samples: as many steps as `updates` of the fleet took."""
        plan = self._description.training
        pooled = self._data.pooled
        steps = updates * plan.steps
        weights = read_weights(self.initial_weights, self._description.parameters)
        if steps > 0:
            engine = OnnxStepEngine.of_task(self._description, bundle_paths(self._bundle, self._description))
            batches = plan_batches(len(pooled), steps, plan.batch_size, seed=0)
            weights, _ = engine.train(weights, self._runner.featured(pooled), batches, Rates.planned(plan))
        return self._accuracy(weights)

    def told(self, *, rounds: int, versions: int, clip: float | None) -> list[Told]:
        """What the task bounds, once the device with most updates has sent so many, and so many versions are made, the
        last with this `clip`.
        """
        return told_so_far(self._description, rounds=rounds, versions=versions, clip=clip)

    def rounds(self) -> Rounds | None:
        """The same head trained in `ROUNDS` rounds of all devices, at the recipe's learning rate; None where no head is
        solved.
        """
        if not self.is_solved:
            return None
        parts = [self._runner.featured(part) for part in self._data.parts]
        contest = Contest(load_bundle(self._bundle), self._bundle, parts, self._held_out)
        return contest.rounds(self._description.update, ROUNDS, (self._description.training.learning_rate,))

    def _accuracy(self, weights: FloatVector) -> float:
        found = self._runner.evaluate_features(weights, self._held_out).accuracy
        return math.nan if found is None else found
