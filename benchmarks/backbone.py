"""What it saves to keep features: a round on a frozen convolutional network, with the backbone cut off and without.

`python -m benchmarks.backbone` prints one JSON object as its last line. Rounds run in this process with one thread;
`frozen_in_graph` is the same model with the same trainable parameters, its frozen part inside `train.onnx`.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bundle_runtime.backbone import Backbone
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.training.engine import Rates, plan_batches
from edge_agent.training.features import compute_features
from edge_agent.training.onnx_step import OnnxStepEngine
from edge_agent.training.worker import read_samples
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle import verify_bundle
from fleet_protocol.bundle_files import BACKBONE_FILE, TRAIN_FILE, WEIGHTS_FILE
from fleet_protocol.codec import read_weights
from fleet_protocol.sample_schema import InputSchema, LabelSchema
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.training_plan import TrainingPlan
from fleet_protocol.update_plan import UpdatePlan
from workbench.export.bundle_writer import bundle_files
from workbench.export.recipe.recipe import Recipe
from workbench.export.recipe.task_file import BackboneSettings, TaskFile

SHAPE = [3, 64, 64]
CLASSES = 4
SAMPLES = 400
NEW_SAMPLES = 32
STEPS = 40
BATCH = 16
ROUNDS = 3


class SmallNetwork(nn.Module):
    """Depthwise-separable convolutions on 64x64 pixels in three colours, 128 features, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_normed(nn.Conv2d(3, 16, 3, 2, 1, bias=False), 16),
            *_separable(16, 32, 1),
            *_separable(32, 64, 2),
            *_separable(64, 128, 2),
            *_separable(128, 128, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(128, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """f32[N, 3, 64, 64] to scores f32[N, CLASSES]."""
        scores: torch.Tensor = self.head(self.features(images))
        return scores


def _separable(channels: int, out: int, stride: int) -> list[nn.Module]:
    depthwise = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
    return [*_normed(depthwise, channels), *_normed(nn.Conv2d(channels, out, 1, bias=False), out)]


def _normed(layer: nn.Module, channels: int) -> list[nn.Module]:
    return [layer, nn.BatchNorm2d(channels), nn.ReLU6()]


def make_module() -> nn.Module:
    """Random weights, and running statistics that fit them."""
    torch.manual_seed(0)
    module = SmallNetwork()
    with torch.no_grad():
        for _ in range(50):
            module(torch.rand(16, *SHAPE))
    return module


def write_bundle(folder: Path, module: nn.Module, backbone: BackboneSettings | None) -> TaskDescription:
    """Export it with the head alone trainable."""
    task = TaskFile(
        task="benchmark",
        title="Benchmark",
        input=InputSchema(SHAPE, 0.0, 1.0),
        label=LabelSchema(CLASSES),
        training=TrainingPlan(STEPS, BATCH, learning_rate=0.05),
        update=UpdatePlan(keep_fraction=1.0),
        aggregation=AggregationPlan(buffer_size=1),
        loss="cross_entropy",
        trainable=("head.*",),
        backbone=backbone,
    )
    files = bundle_files(Recipe(Path(), task, module))
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return verify_bundle(files)


def fill(store: SampleStore, count: int) -> None:
    """Noise: what is measured is time."""
    for number in range(count):
        inputs = np.random.default_rng(store.newest("benchmark")).random(SHAPE, np.float32)
        store.add("benchmark", inputs.tobytes(), number % CLASSES)


def timed_round(store: SampleStore, bundle: Path, task: TaskDescription) -> tuple[float, int]:
    """Seconds from the sample store to trained weights, and how many features were computed on the way."""
    start = time.perf_counter()
    computed = compute_features(store.path, task, bundle / BACKBONE_FILE, 1) if task.backbone else 0
    samples = read_samples(store.path, task).training
    weights = read_weights((bundle / WEIGHTS_FILE).read_bytes(), task.parameters)
    batches = plan_batches(len(samples.labels), STEPS, BATCH, seed=0)
    OnnxStepEngine(bundle / TRAIN_FILE, threads=1).train(weights, samples, batches, Rates.planned(task.training))
    return time.perf_counter() - start, computed


def measure(folder: Path) -> dict[str, object]:
    """Everything that is printed."""
    module = make_module()
    frozen = write_bundle(folder / "frozen", module, None)
    cut = {
        name: write_bundle(folder / name, module, settings)
        for name, settings in (
            ("float32", BackboneSettings("features")),
            ("int8", BackboneSettings("features", "int8")),
        )
    }
    store = SampleStore(folder / "samples.db", 10 * SAMPLES)
    fill(store, SAMPLES)
    in_graph = [timed_round(store, folder / "frozen", frozen)[0] for _ in range(ROUNDS)]
    first, computed = timed_round(store, folder / "float32", cut["float32"])
    later = []
    for _ in range(ROUNDS):
        fill(store, NEW_SAMPLES)
        later.append(timed_round(store, folder / "float32", cut["float32"]))
    return {
        "samples": SAMPLES,
        "new_samples_per_round": NEW_SAMPLES,
        "steps": STEPS,
        "batch_size": BATCH,
        "round_seconds": {
            "frozen_in_graph": round(statistics.median(in_graph), 3),
            "backbone_first_round": round(first, 3),
            "backbone_later_round": round(statistics.median(seconds for seconds, _ in later), 3),
        },
        "features_computed": [computed, *(count for _, count in later)],
        "bytes_per_sample": {
            "inputs": 4 * frozen.input.size,
            "features": 4 * cut["float32"].trained_input.size,
        },
        "backbone": {name: measure_backbone(folder, name) for name in cut},
    }


def measure_backbone(folder: Path, name: str) -> dict[str, float]:
    """Size, time per sample, and how far its features are from those of float32 weights, relative to their norm."""
    inputs = np.random.default_rng(1).random((64, *SHAPE), np.float32)
    exact = Backbone(folder / "float32" / BACKBONE_FILE, 1).features(inputs)
    backbone = Backbone(folder / name / BACKBONE_FILE, 1)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        features = backbone.features(inputs)
        times.append(time.perf_counter() - start)
    return {
        "bytes": (folder / name / BACKBONE_FILE).stat().st_size,
        "relative_error": round(float(np.linalg.norm(features - exact) / np.linalg.norm(exact)), 5),
        "ms_per_sample": round(1000 * min(times) / len(inputs), 3),
    }


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder))))


if __name__ == "__main__":
    main()
