"""Both training engines in the shipped worker, on one bundle: the same samples, batches and rates, the same weights.

The second engine has an environment of its own, which `make .venv-ort/.ready` makes.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from edge_agent.worker.contract import TrainingFailure, TrainingJob, TrainingResult
from fleet_protocol.bundle_files import ORT_CHECKPOINT_FILE, ORT_TRAINING_FILE
from fleet_protocol.codec import decode_update
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sample_schema import LabelSchema
from fleet_protocol.update_plan import UpdatePlan
from tests.support.training import Rates, build, make_recipe, samples, with_head
from tests.support.worker import ORT_PYTHON, make_job, run_worker, store_samples
from workbench.export.bundle_writer import bundle_files
from workbench.export.ort_training import ort_training_files
from workbench.export.recipe.recipe import Recipe

TOLERANCE = 1e-5
STEPS_AT_LEAST = 1e-3
"""How far training must move a weight for the comparison to mean anything."""


@dataclass(frozen=True)
class Case:
    """A model, and what its task asks for."""

    layers: tuple[nn.Module, ...]
    shape: tuple[int, ...]
    options: dict[str, object] = field(default_factory=dict)
    stored: int = 40


CONVOLUTIONS = (nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, groups=4), nn.GELU())
CASES = {
    "perceptron": Case((nn.Linear(6, 8), nn.ReLU()), (6,)),
    "store smaller than a batch": Case((nn.Linear(6, 8), nn.Tanh()), (6,), stored=5),
    "balanced classes": Case((nn.Linear(6, 8), nn.ReLU()), (6,), {"loss": "balanced_cross_entropy"}),
    "several labels": Case((nn.Linear(6, 8),), (6,), {"label": LabelSchema(4, "multi_label")}),
    "convolutions, clip, proximal": Case(
        CONVOLUTIONS, (1, 8, 8), {"rates": Rates(learning_rate=0.1, gradient_clip=0.5, proximal=0.1)}
    ),
    "decay, proximal": Case(
        (nn.Linear(6, 8), nn.ReLU()), (6,), {"rates": Rates(learning_rate=0.1, weight_decay=0.05, proximal=0.1)}
    ),
    "adamw": Case(
        (nn.Linear(6, 8), nn.SiLU()),
        (6,),
        {"optimiser": "adamw", "rates": Rates(learning_rate=0.01, weight_decay=0.1)},
    ),
    "dropout": Case((nn.Linear(6, 8), nn.Dropout(0.3)), (6,)),
}
IN_CI = {"store smaller than a batch", "convolutions, clip, proximal", "adamw"}
EACH_CASE = [
    pytest.param(case, id=name, marks=() if name in IN_CI else pytest.mark.long) for name, case in CASES.items()
]


def recipe_of(case: Case) -> Recipe:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        recipe = make_recipe(*build(lambda: with_head(*case.layers), case.shape), **case.options)
    dense = UpdatePlan(keep_fraction=1.0, quantisation="float32", selection="dense")
    task = msgspec.structs.replace(recipe.task, update=dense)
    return Recipe(recipe.folder, task, recipe.module)


def write_bundle(recipe: Recipe, folder: Path) -> Path:
    folder.mkdir()
    for name, content in bundle_files(recipe, ORT_PYTHON).items():
        (folder / name).write_bytes(content)
    return folder


def change(result: object, shapes: tuple[tuple[int, ...], ...]) -> np.ndarray:
    assert isinstance(result, TrainingResult), result
    delta = np.zeros(sum(int(np.prod(shape)) for shape in shapes), np.float32)
    decode_update(result.packed, shapes).add_to(delta)
    return delta


@pytest.fixture(scope="session", autouse=True)
def second_environment() -> None:
    assert ORT_PYTHON.exists(), f"{ORT_PYTHON} is missing; make it with: make .venv-ort/.ready"


@pytest.mark.parametrize("case", EACH_CASE)
def test_both_engines_end_at_the_same_weights(case: Case, tmp_path: Path) -> None:
    recipe = recipe_of(case)
    bundle = write_bundle(recipe, tmp_path / "bundle")
    inputs, labels = samples(recipe)
    store = store_samples(tmp_path / "samples.db", "layers", inputs[: case.stored], labels[: case.stored])
    shapes = tuple(tuple(parameter.shape) for parameter in recipe.parameters)
    _, default = run_worker(Path(sys.executable), make_job(bundle, store))
    _, other = run_worker(ORT_PYTHON, make_job(bundle, store, "ort-training"))
    expected = change(default, shapes)
    assert np.abs(expected).max() > STEPS_AT_LEAST
    np.testing.assert_allclose(change(other, shapes), expected, rtol=0, atol=TOLERANCE)
    assert other.loss == pytest.approx(default.loss, abs=TOLERANCE)
    assert (other.samples, other.steps) == (default.samples, default.steps)


def test_artifacts_are_the_same_bytes_every_time() -> None:
    recipe = recipe_of(CASES["perceptron"])
    assert ort_training_files(recipe, ORT_PYTHON) == ort_training_files(recipe, ORT_PYTHON)


def test_python_without_the_engine_is_named_at_export() -> None:
    with pytest.raises(ConfigurationError, match=r"--ort-training .*onnxruntime-training-cpu==1\.19\.2"):
        ort_training_files(recipe_of(CASES["perceptron"]), Path(sys.executable))
    assert ort_training_files(recipe_of(CASES["perceptron"]), ORT_PYTHON)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    """A round of the second engine."""
    folder, recipe = tmp_path_factory.mktemp("job"), recipe_of(CASES["perceptron"])
    bundle = write_bundle(recipe, folder / "bundle")
    return make_job(bundle, store_samples(folder / "samples.db", "layers", *samples(recipe)), "ort-training")


def test_engine_that_is_not_installed_is_named_with_the_remedy(job: TrainingJob) -> None:
    _, verdict = run_worker(Path(sys.executable), job)
    assert isinstance(verdict, TrainingFailure)
    assert "needs onnxruntime-training-cpu==1.19.2, installed is onnxruntime 1." in verdict.error


@pytest.mark.parametrize("file", [ORT_TRAINING_FILE, ORT_CHECKPOINT_FILE])
def test_altered_artifact_is_named(file: str, job: TrainingJob, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(Path(job.files[file]).read_bytes()[:-1])
    altered = msgspec.structs.replace(job, files=job.files | {file: str(tmp_path / file)})
    _, verdict = run_worker(ORT_PYTHON, altered)
    assert isinstance(verdict, TrainingFailure)
    assert verdict.error.startswith(f"wrong_hash: {file}")
