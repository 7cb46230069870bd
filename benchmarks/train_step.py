"""What one training step costs: the exported graph, onnxruntime-training and torch eager, one thread each, in one call.

`python -m benchmarks.train_step` prints one JSON object as its last line. The three take turns. onnxruntime-training
runs in a process of the Python that `--ort-python` names; `make .venv-ort/.ready` makes one.
"""

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.model_zoo.models import MODELS as ZOO
from benchmarks.step_contest import (
    BATCH,
    ORT_PYTHON,
    STEPS,
    TREE,
    child_command,
    medians,
    ort_rounds,
    timed,
    write_artifacts,
)
from bundle_runtime.samples import Samples
from edge_agent.training.engine import Rates, plan_batches
from edge_agent.training.onnx_step import OnnxStepEngine
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.sample_schema import InputSchema, LabelSchema
from fleet_protocol.training_plan import TrainingPlan
from fleet_protocol.update_plan import UpdatePlan
from workbench.export.conversion.onnx_conversion import checked_model
from workbench.export.graphs.training_graph import training_graph
from workbench.export.recipe.recipe import Recipe
from workbench.export.recipe.scaling import ScalingSettings
from workbench.export.recipe.task_file import TaskFile

SAMPLES = 200
CLASSES = 10
LEARNING_RATE = 0.05
ROUNDS = 25


MODELS = ("mlp_head", "small_cnn", "gru", "dscnn")
"""Of the zoo."""


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
        reason = write_artifacts(recipe, ort_python, folder)
        engine = OnnxStepEngine(folder / "train.onnx", 1)
        trained, _ = engine.train(weights, samples, plan, Rates(LEARNING_RATE))
        _train_with_torch(recipe.module, samples, plan.rows)
        expected = torch.cat([parameter.detach().ravel() for parameter in recipe.module.parameters()]).numpy()
        contestants = {
            "edgeflock_us": lambda: timed(lambda: engine.train(weights, samples, plan, Rates(LEARNING_RATE))),
            "torch_us": lambda: timed(lambda: _train_with_torch(recipe.module, samples, plan.rows)),
        }
        with contextlib.ExitStack() as stack:
            if not reason:
                rounds = stack.enter_context(ort_rounds(ort_python, folder, ROUNDS))
                contestants["ort_training_us"] = lambda: next(rounds)
            times = medians(contestants, ROUNDS)
        peaks: dict[str, float | str | None] = {
            "worker_peak_rss_mb": _peak(Path(sys.executable), folder, "onnx-step"),
            "ort_training_peak_rss_mb": None if reason else _peak(ort_python, folder, "python-api"),
            "ort_training_engine_peak_rss_mb": None if reason else _peak(ort_python, folder, "ort-training"),
        }
    if reason:
        peaks["ort_training_reason"] = reason
    return {"ort_training_us": None, **times, "max_abs_diff": float(np.abs(trained - expected).max()), **peaks}


def _peak(python: Path, folder: Path, engine: str) -> float:
    """Peak resident memory in MB (MiB) of a process of its own that trains one round."""
    command = child_command(python, folder, engine, 1)
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
        scaling=ScalingSettings(inputs="off"),
    )
    return Recipe(Path(), task, module)


def _train_with_torch(module: nn.Module, samples: Samples, rows: np.ndarray) -> None:
    inputs, labels = torch.from_numpy(samples.inputs), torch.from_numpy(samples.labels)
    optimiser = torch.optim.SGD(module.parameters(), lr=LEARNING_RATE)
    for row in torch.from_numpy(rows):
        optimiser.zero_grad()
        functional.cross_entropy(module(inputs[row]), labels[row]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()


def main() -> None:
    """Measure every model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ort-python", type=Path, default=ORT_PYTHON, metavar="PYTHON")
    ort_python: Path = parser.parse_args().ort_python
    if not ort_python.exists():
        parser.error(f"{ort_python} doesn't exist; make .venv-ort/.ready, or name another Python with --ort-python")
    torch.set_num_threads(1)
    print(json.dumps({"models": {name: measure(ZOO[name].make, ZOO[name].shape, ort_python) for name in MODELS}}))


if __name__ == "__main__":
    main()
