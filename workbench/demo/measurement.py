"""Accuracy of versions on the held-out digits, and what the same model reaches on the pooled data."""

from pathlib import Path

import numpy as np

from edge_agent.training.engine import Rates, Samples, plan_batches
from edge_agent.training.onnx_step import OnnxStepEngine
from fleet_protocol.bundle import TRAIN_FILE, WEIGHTS_FILE, TaskDescription
from fleet_protocol.codec import read_weights
from fleet_protocol.codec.sparse import FloatVector
from workbench.bundle_runner import BundleRunner
from workbench.demo.digits_data import FleetData


class Measurement:
    """Runs a bundle's graphs on one fleet's data."""

    def __init__(self, bundle: Path, description: TaskDescription, data: FleetData) -> None:
        self._bundle = bundle
        self._description = description
        self._data = data
        self._runner = BundleRunner(bundle, description)
        self._held_out = self._runner.features(data.held_out.inputs)

    @property
    def parameters(self) -> int:
        """Length of the flat weight vector."""
        return self._description.parameter_count

    @property
    def dense_bytes(self) -> int:
        """What one update would cost as float32 weights."""
        return 4 * self.parameters

    @property
    def held_out_samples(self) -> int:
        """Digits that no device has."""
        return len(self._data.held_out.labels)

    def accuracy(self, weights_file: bytes) -> float:
        """The fraction of held-out digits that a version (safetensors) reads right."""
        return self._accuracy(read_weights(weights_file, self._description.parameters))

    def central_accuracy(self, updates: int) -> float:
        """The same for the same model trained on the pooled samples: as many steps as `updates` of the fleet took."""
        plan, pooled = self._description.training, self._data.pooled
        steps = updates * plan.steps
        weights = read_weights((self._bundle / WEIGHTS_FILE).read_bytes(), self._description.parameters)
        samples = Samples(self._runner.features(pooled.inputs), pooled.labels, newest=0)
        if steps > 0:
            engine = OnnxStepEngine(self._bundle / TRAIN_FILE, threads=1)
            batches = plan_batches(len(pooled.labels), steps, plan.batch_size, seed=0)
            weights, _ = engine.train(weights, samples, batches, Rates.planned(plan))
        return self._accuracy(weights)

    def _accuracy(self, weights: FloatVector) -> float:
        correct = self._runner.evaluate_features(weights, self._held_out, self._data.held_out.labels).correct
        return float("nan") if correct is None else float(np.mean(correct))
