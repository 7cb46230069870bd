"""The second engine: onnxruntime's own training sessions, for x86-64 gateways.

It uses the compiled classes that the package's Python API wraps, because `import onnxruntime.training` imports
torch: 300 MB for nothing that is used here. 1.19.2 is the last release, so these classes won't change.
"""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.graph import ONNXRUNTIME_VERSION, admit_graph, native, session_options
from bundle_runtime.samples import Samples
from edge_agent.training.engine import BatchPlan, EngineError, OnProgress, Rates, ignore_progress
from fleet_protocol.bundle_files import ORT_CHECKPOINT_FILE, ORT_OPTIMISER_FILE, ORT_TRAINING_FILE
from fleet_protocol.codec.sparse import FloatVector

REPORT_SECONDS = 0.5
LOSS = "loss"
ERROR_SEVERITY = 3


class OrtTrainingEngine:
    """One training step, one optimiser step and one reset of the gradients for each mini-batch."""

    def __init__(self, files: Mapping[str, Path], classes: int, threads: int) -> None:
        """`files` are the bundle's three artifacts by name; `classes` is 0 where labels are no class indices.

        Raises:
            GraphError: a graph has what none of a bundle needs.
        """
        for name in (ORT_TRAINING_FILE, ORT_OPTIMISER_FILE):
            admit_graph(name, files[name])
        self._files = files
        self._classes = classes
        self._options = session_options(threads)
        self._options.log_severity_level = ERROR_SEVERITY
        self._device = native.OrtDevice(native.OrtDevice.cpu(), native.OrtDevice.default_memory(), 0)

    def train(
        self,
        weights: FloatVector,
        samples: Samples,
        plan: BatchPlan,
        rates: Rates,
        on_progress: OnProgress = ignore_progress,
    ) -> tuple[FloatVector, FloatVector]:
        """See `TrainingEngine.train`. Weight decay and gradient clip are part of the artifacts, not of `rates`."""
        module, optimiser = self.open_sessions(weights)
        optimiser.set_learning_rate(rates.learning_rate)
        losses = self.run_steps(
            module, optimiser, self._constants(weights, samples, rates), samples, plan, on_progress=on_progress
        )
        trained = native.OrtValue.ortvalue_from_shape_and_type([weights.size], np.float32, self._device)
        module.copy_parameters_to_buffer(trained, True)
        return trained.numpy(), losses

    def run_steps(
        self,
        module: native.Module,
        optimiser: native.Optimizer,
        constants: Mapping[str, NDArray[np.generic]],
        samples: Samples,
        plan: BatchPlan,
        *,
        on_progress: OnProgress = ignore_progress,
    ) -> FloatVector:
        """Train the module's own parameters; returns the losses. `constants` are inputs that all steps share."""
        names, place = list(module.input_names(True)), list(module.output_names(True)).index(LOSS)
        row_weights = plan.mask / np.maximum(plan.mask.sum(axis=1, keepdims=True), np.float32(1))
        losses = np.empty(len(plan.rows), np.float32)
        reported = time.monotonic()
        for step, rows in enumerate(plan.rows):
            feeds = {
                **constants,
                "inputs": samples.inputs[rows],
                "labels": samples.labels[rows],
                "row_weights": row_weights[step],
                "seed": np.array(plan.seed + step, np.int64),
            }
            fetched = native.OrtValueVector()
            module.train_step([feeds[name] for name in names], fetched)
            optimiser.optimizer_step()
            module.lazy_reset_grad()
            losses[step] = fetched[place].numpy()
            if time.monotonic() - reported >= REPORT_SECONDS:
                on_progress(step + 1, losses[: step + 1])
                reported = time.monotonic()
        on_progress(len(losses), losses)
        return losses

    def open_sessions(self, weights: FloatVector) -> tuple[native.Module, native.Optimizer]:
        """Module and optimiser at these weights, with fresh state."""
        paths = {name: str(path) for name, path in self._files.items()}
        try:
            # Module and optimiser keep pointers into the state but no reference to it.
            state = self._state = native.load_checkpoint(paths[ORT_CHECKPOINT_FILE])
            module = native.Module(paths[ORT_TRAINING_FILE], state, None, self._device, self._options)
            size = module.get_parameters_size(True)
            if size == weights.size:
                values = native.OrtValue.ortvalue_from_numpy(weights, self._device)
                module.copy_buffer_to_parameters(values, False)  # all of them, which the nominal checkpoint waits for
            optimiser = native.Optimizer(paths[ORT_OPTIMISER_FILE], state, self._device, self._options)
        except RuntimeError as error:
            raise EngineError(
                f"onnxruntime-training {ONNXRUNTIME_VERSION} can't load the artifacts: {error}; export the bundle again"
            ) from error
        if size != weights.size:
            raise EngineError(
                f"{ORT_TRAINING_FILE} trains {size} parameters, the task has {weights.size}; export the bundle again"
            )
        return module, optimiser

    def _constants(self, weights: FloatVector, samples: Samples, rates: Rates) -> dict[str, NDArray[np.generic]]:
        """Inputs that are the same in every step."""
        constants: dict[str, NDArray[np.generic]] = {
            "anchor": weights,
            "proximal": np.array(rates.proximal, np.float32),
            "correction": np.zeros_like(weights) if rates.correction is None else rates.correction,
        }
        if self._classes:
            constants["class_counts"] = np.bincount(samples.labels.astype(np.int64), minlength=self._classes).astype(
                np.float32
            )
        return constants
