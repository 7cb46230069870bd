"""What one training step costs: the exported graph against torch eager, one thread each, in one call.

`python -m benchmarks.train_step` prints one JSON object as its last line. Times are the best of several rounds.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_agent.training.engine import Rates, Samples, plan_batches
from edge_agent.training.onnx_step import OnnxStepEngine
from fleet_protocol.bundle import AggregationPlan, InputSchema, LabelSchema, TrainingPlan, UpdatePlan
from workbench.export.onnx_conversion import checked_model
from workbench.export.recipe import Recipe, TaskFile
from workbench.export.training_graph import training_graph

STEPS, BATCH, SAMPLES, CLASSES, LEARNING_RATE, ROUNDS = 50, 16, 200, 10, 0.05, 7
PEAK = """
import re, sys
import numpy as np
from pathlib import Path
from edge_agent.training.engine import Rates, Samples, plan_batches
from edge_agent.training.onnx_step import OnnxStepEngine
data = np.load(sys.argv[2])
engine = OnnxStepEngine(Path(sys.argv[1]), 1)
plan = plan_batches(len(data["labels"]), 50, 16, 0)
engine.train(data["weights"], Samples(data["inputs"], data["labels"], 0), plan, Rates(0.05))
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""
"""A worker's imports and one round, in a process of its own; prints its peak resident memory in KiB."""


class LastStep(nn.Module):
    """A GRU and a linear head on its last output."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.GRU(6, 16, batch_first=True), nn.Linear(16, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        """f32[B, T, 6] to scores f32[B, classes]."""
        scores: Tensor = self.head(self.layer(inputs)[0][:, -1])
        return scores


def small_cnn() -> nn.Module:
    """Two convolutions on 8x8 pixels."""
    layers = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, CLASSES))


def dscnn() -> nn.Module:
    """A convolution and two depthwise-separable ones, as for keyword spotting."""
    layers: list[nn.Module] = [nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU()]
    for _ in range(2):
        layers += [nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp_head": (lambda: nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, CLASSES)), (64,)),
    "small_cnn": (small_cnn, (1, 8, 8)),
    "gru": (LastStep, (8, 6)),
    "dscnn": (dscnn, (1, 16, 16)),
}


def measure(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> dict[str, float | None]:
    """All keys of one model. What onnxruntime-training would need isn't installed beside onnxruntime, so it is null."""
    torch.manual_seed(0)
    recipe = _recipe(make(), shape)
    random = np.random.default_rng(0)
    inputs = random.normal(size=(SAMPLES, *shape)).astype(np.float32)
    samples = Samples(inputs, random.integers(0, CLASSES, SAMPLES), 0)
    plan = plan_batches(SAMPLES, STEPS, BATCH, 0)
    weights = torch.cat([tensor.ravel() for tensor in recipe.tensors.values()]).numpy().copy()
    with tempfile.TemporaryDirectory() as folder:
        graph, data = Path(folder, "train.onnx"), Path(folder, "data.npz")
        graph.write_bytes(checked_model(training_graph(recipe)).SerializeToString())
        np.savez(data, weights=weights, inputs=inputs, labels=samples.labels)
        engine = OnnxStepEngine(graph, 1)
        ours = _best(lambda: engine.train(weights, samples, plan, Rates(LEARNING_RATE)))
        trained, _ = engine.train(weights, samples, plan, Rates(LEARNING_RATE))
        command = [sys.executable, "-c", PEAK, str(graph), str(data)]
        peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    _train_with_torch(recipe.module, samples, plan.rows)
    expected = torch.cat([parameter.detach().ravel() for parameter in recipe.module.parameters()]).numpy()
    return {
        "edgeflock_us": round(ours, 1),
        "ort_training_us": None,
        "torch_us": round(_best(lambda: _train_with_torch(recipe.module, samples, plan.rows)), 1),
        "max_abs_diff": float(np.abs(trained - expected).max()),
        "worker_peak_rss_mb": round(peak / 1024, 1),
        "ort_training_peak_rss_mb": None,
    }


def _recipe(module: nn.Module, shape: tuple[int, ...]) -> Recipe:
    task = TaskFile(
        "benchmark",
        "Benchmark",
        InputSchema(list(shape), -9.0, 9.0),
        LabelSchema(CLASSES),
        TrainingPlan(STEPS, BATCH, LEARNING_RATE),
        UpdatePlan(keep_fraction=1.0),
        AggregationPlan(buffer_size=1),
        loss="cross_entropy",
    )
    return Recipe(Path(), task, module)


def _train_with_torch(module: nn.Module, samples: Samples, rows: np.ndarray) -> None:
    inputs, labels = torch.from_numpy(samples.inputs), torch.from_numpy(samples.labels)
    optimiser = torch.optim.SGD(module.parameters(), lr=LEARNING_RATE)
    for row in torch.from_numpy(rows):
        optimiser.zero_grad()
        functional.cross_entropy(module(inputs[row]), labels[row]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def _best(run: Callable[[], object]) -> float:
    """Microseconds per step of the fastest of several runs."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times) / STEPS * 1e6


def main() -> None:
    """Measure every model."""
    torch.set_num_threads(1)
    print(json.dumps({"models": {name: measure(*entry) for name, entry in MODELS.items()}}))


if __name__ == "__main__":
    main()
