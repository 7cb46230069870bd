"""A task that promises privacy of samples gets it: the device fetches that graph alone, and its worker adds noise."""

import array
import asyncio
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.graph import Graph
from edge_agent.core.budget_rules import SpentBudget
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.training.engine import BatchPlan, Rates
from edge_agent.training.private.engine import PrivateEngine
from edge_agent.training.worker import read_samples
from edge_agent.worker.contract import TrainingFailure, TrainingJob, TrainingResult
from edge_agent.worker.settings import WorkerSettings
from edge_agent.worker.supervisor import train_in_child
from fleet_protocol.bundle_files import EVALUATE_FILE, SAMPLE_GRADIENTS_FILE, WEIGHTS_FILE
from fleet_protocol.codec import decode_update, read_weights
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.task_description import TaskDescription
from tests.export.test_per_sample_rounds import fetched_version
from tests.support.private_task import private_recipe
from workbench.export.bundle_writer import export_bundle
from workbench.export.graphs.gradients import sample_gradients
from workbench.export.graphs.sample_gradients import sample_gradients_graph
from workbench.export.recipe.recipe import read_recipe

SAMPLES = 40
DENSE = ("keep_fraction = 0.13", 'keep_fraction = 1.0\nselection = "dense"\nquantisation = "float32"')

SLOW = ("learning_rate = 0.3", "learning_rate = 0.03")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With the recipe, and the bundle made from it."""
    made = tmp_path_factory.mktemp("private")
    export_bundle(private_recipe(made / "recipe", DENSE, SLOW), made / "bundle")
    return made


@pytest.fixture(scope="module")
def task(folder: Path) -> TaskDescription:
    return load_bundle(folder / "bundle").description


def stored(folder: Path) -> SampleStore:
    store = SampleStore(folder / "samples.db", SAMPLES)
    for number in range(SAMPLES):
        pixels = [((place * 7 + number * 13) % 10) / 10 for place in range(64)]
        store.add("digits", array.array("f", pixels).tobytes(), number % 10)
    return store


def trained(job: TrainingJob) -> TrainingResult | TrainingFailure:
    verdict = asyncio.run(train_in_child(job, WorkerSettings(nice=0)))
    assert isinstance(verdict, TrainingResult | TrainingFailure), verdict
    return verdict


def test_bundle_has_the_noise_that_its_rounds_need_and_the_graph_of_gradients(task):
    promised = task.sample_privacy
    assert promised is not None
    assert 3 * task.training.steps <= promised.most_steps() < 3.1 * task.training.steps
    assert promised.epsilon_after(3 * task.training.steps) <= 4
    assert task.graph_file == SAMPLE_GRADIENTS_FILE


def test_gradients_of_the_graph_are_torchs(folder, task):
    recipe = read_recipe(folder / "recipe")
    recipe.set_training(True)
    bundle = load_bundle(folder / "bundle")
    generator = np.random.default_rng(1)
    rows = task.training.batch_size
    inputs = generator.random((rows, 64), np.float32)
    labels = generator.integers(0, 10, rows)
    weights = bundle.first_version()
    found = Graph(SAMPLE_GRADIENTS_FILE, bundle.files[SAMPLE_GRADIENTS_FILE]).run(
        {"weights": weights, "inputs": inputs, "labels": labels}
    )["gradients"]
    function = sample_gradients(recipe, ["weights", "inputs", "labels"])
    (expected,) = function(*map(torch.from_numpy, (weights, inputs, labels)))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-6)


MOVING = ("nn.Linear(64,", "nn.BatchNorm1d(64), nn.Linear(64,")


@dataclass(frozen=True, slots=True)
class Refused:
    """What task.toml says, or which place of model.py is another, and the words."""

    words: str
    edits: tuple[tuple[str, str], ...] = ()
    model: tuple[str, str] = ("", "")


PART_LOSSES = "".join(f"def loss_{part}(outputs):\n    return outputs[:, 0]\n\n" for part in ("front", "back"))
REFUSED = {
    "balanced": Refused(
        r"balanced_cross_entropy counts all labels of a device; write loss = 'cross_entropy'",
        (('"cross_entropy"', '"balanced_cross_entropy"'),),
    ),
    "in turn": Refused(
        r"goes with one loss, not with \[parts\]; leave one of them out",
        (
            ('loss = "cross_entropy"', ""),
            (
                "[loss_settings]\nlabel_smoothing = 0.1",
                "[parts.front]\nparameters = ['1.*']\n[parts.back]\nparameters = ['3.*']",
            ),
            ("classes = 10", 'kind = "none"'),
        ),
        ("def build", PART_LOSSES + "def build"),
    ),
    "moving": Refused(r"take GroupNorm, or write batch_norm = 'frozen'", model=MOVING),
}


@pytest.mark.parametrize("case", REFUSED)
def test_task_whose_samples_are_not_alone_is_refused_in_words(tmp_path, case):
    refused = REFUSED[case]
    folder = private_recipe(tmp_path / "recipe", *refused.edits)
    model = (folder / "model.py").read_text()
    (folder / "model.py").write_text(model.replace(*refused.model, 1))
    recipe = read_recipe(folder)
    recipe.set_training(True)
    with pytest.raises(ConfigurationError, match=refused.words):
        sample_gradients_graph(recipe)


def test_device_fetches_only_the_graph_of_gradients_and_sends_noise_and_no_loss(folder, task, tmp_path):
    ready, _ = fetched_version(tmp_path, folder / "bundle", task.files[WEIGHTS_FILE])
    assert ready.files.keys() == {SAMPLE_GRADIENTS_FILE}
    assert EVALUATE_FILE not in ready.files
    store = stored(tmp_path)
    job = TrainingJob(
        description=ready.description,
        engine="onnx-step",
        files={name: str(path) for name, path in ready.files.items()},
        weights=str(ready.weights),
        sample_store=str(store.path),
        residual=b"",
        returned=[],
        seed=3,
        life=1,
        threads=1,
        nice=0,
        memory_limit_mib=512,
        cpu_limit_seconds=600,
        among=(10, 30),
    )
    deltas = []
    for _ in range(2):
        result = trained(job)
        assert isinstance(result, TrainingResult), result
        assert (result.samples, result.steps, result.trained_through) == (20, task.training.steps, 30)
        assert result.loss == 0
        sent = decode_update(result.packed, task.shapes)
        deltas.append(np.zeros(task.parameter_count, np.float32))
        deltas[-1][sent.indices] = sent.values
    assert (deltas[0] != deltas[1]).all(), "the same job draws other noise"
    promised = task.sample_privacy
    assert promised is not None
    # What the noise alone makes of a weight: each step adds one of this deviation, and the samples much less.
    noise = promised.noise_multiplier * promised.clip / (promised.sampling_rate * 20)
    expected = task.training.learning_rate * noise * task.training.steps**0.5
    assert np.std(deltas[0] - deltas[1]) == pytest.approx(expected * 2**0.5, rel=0.1)

    all_rest = trained(msgspec.structs.replace(job, budgets=[SpentBudget("own", list(range(10)), 30)]))
    assert isinstance(all_rest, TrainingResult), all_rest
    assert (all_rest.samples, all_rest.loss) == (20, 0), "an update of noise alone tells nothing of who rests"
    assert decode_update(all_rest.packed, task.shapes).indices.size == sent.indices.size

    chosen = msgspec.structs.replace(promised, noise_multiplier=0.0, owners_choose=True)
    quiet = msgspec.structs.replace(task, privacy=PrivacyPlan(chosen))
    resting = [SpentBudget("own", list(range(10)), 30)]
    nothing = trained(msgspec.structs.replace(job, description=quiet, budgets=resting))
    assert isinstance(nothing, TrainingResult), nothing
    assert nothing.noise == 0
    assert not decode_update(nothing.packed, task.shapes).values.any(), "an owner who wants no noise has none"

    refused = trained(msgspec.structs.replace(job, engine="ort-training"))
    assert isinstance(refused, TrainingFailure)
    none_left = trained(msgspec.structs.replace(job, among=(40, 40)))
    assert isinstance(none_left, TrainingFailure)
    assert "no stored sample" in none_left.error


def test_step_is_the_clipped_sum_over_the_expected_size_and_several_calls_make_one_batch(folder, task, tmp_path):
    promised = task.sample_privacy
    assert promised is not None
    bundle = load_bundle(folder / "bundle")
    weights = read_weights(bundle.weights, task.parameters)
    samples = read_samples(stored(tmp_path).path, task).training

    def without_noise(count: int) -> bytes:
        """Uniform words of which Box and Muller's radius is 0."""
        return b"\xff" * count

    rows = np.arange(37)[np.newaxis]  # more than two of the graph's batches
    plan = BatchPlan(rows, np.ones_like(rows, np.float32), seed=0)
    quiet = PrivateEngine(task, bundle.files, draw=without_noise)
    moved, losses = quiet.train(weights, samples, plan, Rates(1.0))
    recipe = read_recipe(folder / "recipe")
    recipe.set_training(True)
    function = sample_gradients(recipe, ["weights", "inputs", "labels"])
    (gradients,) = function(*map(torch.from_numpy, (weights, samples.inputs[:37], samples.labels[:37])))
    scales = torch.clamp(promised.clip / gradients.norm(dim=1), max=1)
    expected = (scales @ gradients).numpy() / (promised.sampling_rate * SAMPLES)
    np.testing.assert_allclose(weights - moved, expected, rtol=1e-3, atol=1e-4)
    assert not losses.any()

    alone = PrivateEngine(task, bundle.files, draw=without_noise, samples_alone=True)
    np.testing.assert_allclose(alone.train(weights, samples, plan, Rates(1.0))[0], moved, rtol=0, atol=1e-5)

    empty = BatchPlan(rows, np.zeros_like(rows, np.float32), seed=0)
    kept, _ = quiet.train(weights, samples, empty, Rates(1.0))
    assert (kept == weights).all()
    noised, _ = PrivateEngine(task, bundle.files).train(weights, samples, empty, Rates(1.0))
    assert (noised != weights).mean() > 0.99, "an empty batch has its noise all the same"
    chosen, _ = PrivateEngine(task, bundle.files).with_noise(0.0).train(weights, samples, empty, Rates(1.0))
    assert (chosen == weights).all()
