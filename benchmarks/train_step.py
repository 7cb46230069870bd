"""What one training step costs: the exported graph, onnxruntime-training and torch eager, one thread each, in one call.

`python -m benchmarks.train_step` prints one JSON object as its last line. The three take turns, round by round, and
times are medians over the rounds, so that whatever else the machine does hits all alike. onnxruntime-training runs in
a process of the Python that `--ort-python` names; `make .venv-ort/.ready` makes one.
"""

import argparse
import contextlib
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bundle_runtime.samples import Samples
from edge_agent.training.engine import Rates, plan_batches
from edge_agent.training.onnx_step import OnnxStepEngine
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle import TrainingPlan, UpdatePlan
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sample_schema import InputSchema, LabelSchema
from workbench.export.onnx_conversion import checked_model
from workbench.export.ort_training import ort_training_files
from workbench.export.recipe import Recipe
from workbench.export.task_file import TaskFile
from workbench.export.training_graph import training_graph

STEPS = 50
BATCH = 16
SAMPLES = 200
CLASSES = 10
LEARNING_RATE = 0.05
ROUNDS = 25
WARM_UP_ROUNDS = 2
TREE = Path(__file__).parents[1]
ORT_PYTHON = TREE / ".venv-ort" / "bin" / "python"


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


def measure(make: Callable[[], nn.Module], shape: tuple[int, ...], ort_python: Path) -> dict[str, float | str | None]:
    """All keys of one model; where onnxruntime-training can't train it, its times are null and a reason is given."""
    torch.manual_seed(0)
    recipe = _recipe(make(), shape)
    recipe.set_training(True)
    random = np.random.default_rng(0)
    inputs = random.normal(size=(SAMPLES, *shape)).astype(np.float32)
    samples = Samples(inputs, random.integers(0, CLASSES, SAMPLES))
    plan = plan_batches(SAMPLES, STEPS, BATCH, 0)
    weights = torch.cat([tensor.ravel() for tensor in recipe.tensors.values()]).numpy().copy()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "train.onnx").write_bytes(checked_model(training_graph(recipe)).SerializeToString())
        np.savez(folder / "data.npz", weights=weights, inputs=inputs, labels=samples.labels)
        reason = _write_artifacts(recipe, ort_python, folder)
        engine = OnnxStepEngine(folder / "train.onnx", 1)
        trained, _ = engine.train(weights, samples, plan, Rates(LEARNING_RATE))
        _train_with_torch(recipe.module, samples, plan.rows)
        expected = torch.cat([parameter.detach().ravel() for parameter in recipe.module.parameters()]).numpy()
        contestants = {
            "edgeflock_us": lambda: _timed(lambda: engine.train(weights, samples, plan, Rates(LEARNING_RATE))),
            "torch_us": lambda: _timed(lambda: _train_with_torch(recipe.module, samples, plan.rows)),
        }
        with contextlib.ExitStack() as stack:
            if not reason:
                rounds = stack.enter_context(_ort_rounds(ort_python, folder))
                contestants["ort_training_us"] = lambda: next(rounds)
            times = _medians(contestants)
        peaks: dict[str, float | str | None] = {
            "worker_peak_rss_mb": _peak(Path(sys.executable), folder, "onnx-step"),
            "ort_training_peak_rss_mb": None if reason else _peak(ort_python, folder, "python-api"),
            "ort_training_engine_peak_rss_mb": None if reason else _peak(ort_python, folder, "ort-training"),
        }
    if reason:
        peaks["ort_training_reason"] = reason
    return {"ort_training_us": None, **times, "max_abs_diff": float(np.abs(trained - expected).max()), **peaks}


def _write_artifacts(recipe: Recipe, ort_python: Path, folder: Path) -> str:
    """Write what that engine needs; returns why it can't, or nothing."""
    try:
        files = ort_training_files(recipe, ort_python)
    except ConfigurationError as error:
        return str(error)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return ""


def _contestant(python: Path, folder: Path, engine: str, rounds: int) -> list[str]:
    torch_folder = str(Path(torch.__file__).parents[1])
    return [str(python), "-m", "benchmarks.train_step_child", str(folder), engine, str(rounds), torch_folder]


@contextlib.contextmanager
def _ort_rounds(python: Path, folder: Path) -> Iterator[Iterator[float]]:
    """Each `next` lets the other process run one round, and is its seconds."""
    command = _contestant(python, folder, "ort-training", ROUNDS + WARM_UP_ROUNDS)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TREE) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the process was started without pipes")
        stdin, stdout = process.stdin, process.stdout

        def rounds() -> Iterator[float]:
            while True:
                stdin.write("go\n")
                stdin.flush()
                yield float(stdout.readline())

        yield rounds()
        stdin.close()
        stdout.read()  # its last line is of no interest here, but must find a reader


def _medians(contestants: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Microseconds per step of each; they take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(ROUNDS + WARM_UP_ROUNDS):
        for name, run in contestants.items():
            took = run()
            if number >= WARM_UP_ROUNDS:
                seconds[name].append(took)
    return {name: round(statistics.median(took) / STEPS * 1e6, 1) for name, took in seconds.items()}


def _peak(python: Path, folder: Path, engine: str) -> float:
    """Peak resident memory in MB (MiB) of a process of its own that trains one round."""
    command = _contestant(python, folder, engine, 1)
    said = subprocess.run(command, input="go\n", check=True, capture_output=True, text=True, cwd=TREE).stdout
    found = re.search(r"peak_kib (\d+)", said)
    if found is None:
        raise RuntimeError(f"no peak in {said!r}")
    return round(int(found[1]) / 1024, 1)


def _recipe(module: nn.Module, shape: tuple[int, ...]) -> Recipe:
    task = TaskFile(
        task="benchmark",
        title="Benchmark",
        input=InputSchema(list(shape), -9.0, 9.0),
        label=LabelSchema(CLASSES),
        training=TrainingPlan(STEPS, BATCH, LEARNING_RATE),
        update=UpdatePlan(keep_fraction=1.0),
        aggregation=AggregationPlan(buffer_size=1),
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


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    """Measure every model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ort-python", type=Path, default=ORT_PYTHON, metavar="PYTHON")
    ort_python: Path = parser.parse_args().ort_python
    if not ort_python.exists():
        parser.error(f"{ort_python} doesn't exist; make .venv-ort/.ready, or name another Python with --ort-python")
    torch.set_num_threads(1)
    print(json.dumps({"models": {name: measure(*entry, ort_python) for name, entry in MODELS.items()}}))


if __name__ == "__main__":
    main()
