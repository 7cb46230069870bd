"""A model in blocks trains as the whole model does, wherever each block runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from benchmarks.chained_blocks import ExportedTask
from bundle_runtime.blocks import BlockRunner
from bundle_runtime.graph import GraphError
from bundle_runtime.samples import Samples
from edge_agent.training.engine import BatchPlan
from fleet_protocol.scaling import Scale, Scaling
from fleet_protocol.split_plan import Cut, backward_file, forward_file, passing_file
from tests.support.backbone import NAMED
from tests.support.backbone import write_recipe as write_backbone_recipe
from tests.support.chained_blocks import train_chained, train_whole
from tests.support.recipes import ONE_INPUT, write_recipe
from tests.support.split_session import SESSION, DirectExchange, engine_of, middle_of, plan_of
from workbench.export.blocks.points import caught_alone, joined_runs
from workbench.export.recipe.recipe import read_recipe
from workbench.export.trials.random_samples import random_samples

STEPS, ROWS, SAMPLES, SEED = 50, 8, 40, 11
TOLERANCE = 1e-5

PICTURES = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2),
        nn.Conv2d(4, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout2d(0.2),
        nn.Flatten(), nn.Linear(54, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 4),
    )
"""
THIN = """
from torch import nn

def build():
    return nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 4))
"""
COMPRESSED = """
[label]
classes = 4
[compression.adapters]
rank = 2
parameters = ["0.*"]
[compression.factors]
rank = 2
parameters = ["2.*"]
[compression.pruning]
keep = 0.5
parameters = ["4.*"]
"""
PICTURE = """
[input]
shape = [1, 8, 8]
minimum = -3.0
maximum = 3.0
"""
SEQUENCES = """
from torch import nn

class Layer(nn.Module):
    def __init__(self, inputs, outputs, dropout=0.0, layers=1):
        super().__init__()
        self.recurrence = nn.GRU(inputs, outputs, num_layers=layers, dropout=dropout, batch_first=True)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, sequence):
        outputs, _ = self.recurrence(sequence)
        return self.norm(outputs.transpose(1, 2)).transpose(1, 2)

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Layer(3, 6)
        self.drop = nn.Dropout(0.3)
        self.second = Layer(6, 5, 0.3, 2)
        self.third = nn.Linear(5, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, sequence):
        return self.head(self.third(self.second(self.drop(self.first(sequence)))[:, -1]).tanh())

def build():
    return Model()
"""
SEQUENCE = """
[input]
shape = [7, 3]
minimum = -100.0
maximum = 100.0
"""
ADVERSARIES = """
import torch
from torch import nn
from torch.nn import functional

class Adversaries(nn.Module):
    def __init__(self):
        super().__init__()
        self.generator = nn.Sequential(
            nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 5),
        )
        self.discriminator = nn.Sequential(
            nn.Linear(5, 8), nn.LeakyReLU(0.2), nn.Dropout(0.3),
            nn.Linear(8, 6), nn.BatchNorm1d(6), nn.LeakyReLU(0.2), nn.Linear(6, 1),
        )

    def forward(self, latent, real):
        made = self.generator(latent)
        return {"scores": made, "made": self.discriminator(made)[:, 0], "real": self.discriminator(real)[:, 0]}

def build():
    return Adversaries()

def loss_discriminator(outputs):
    return functional.softplus(outputs["made"]) + functional.softplus(-outputs["real"])

def loss_generator(outputs):
    return functional.softplus(-outputs["made"])
"""
PAIR = """
[inputs.latent]
shape = [3]
minimum = -3.0
maximum = 3.0
[inputs.real]
shape = [5]
minimum = -3.0
maximum = 3.0
"""
PARTS = """
[label]
kind = "none"
[parts.discriminator]
parameters = ["discriminator.*"]
rate = 2.0
[parts.generator]
parameters = ["generator.*"]
"""


@dataclass(frozen=True, slots=True)
class Model:
    """A recipe: its model, what goes in, its points, and the rest of `task.toml`."""

    code: str
    inputs: str
    points: tuple[str, ...]
    tables: str
    training: str
    cuts: str = ""


MODELS: Mapping[str, Model] = {
    "pictures": Model(
        PICTURES,
        PICTURE,
        ("2", "7"),
        "[label]\nclasses = 4\n",
        'optimiser = "momentum"\nweight_decay = 0.01\n',
    ),
    "sequences": Model(
        SEQUENCES,
        SEQUENCE,
        ("first", "second"),
        '[label]\nkind = "regression"\nvalues = 2\n',
        'optimiser = "adam"\nproximal = 0.1\n',
    ),
    "compressed": Model(THIN, ONE_INPUT, ("1", "3"), COMPRESSED, ""),
    "adversaries": Model(
        ADVERSARIES,
        PAIR,
        ("generator.2", "generator", "discriminator.1", "discriminator.4"),
        PARTS,
        "validation_share = 0.0\n",
        """
        in_generator = [["generator.2", "generator"]]
        in_discriminator = [["discriminator.1", "discriminator.4"]]
        in_both = [["generator.2", "generator"], ["discriminator.1", "discriminator.4"]]
        """,
    ),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ExportedTask]:
    """Exports a model, once."""

    @cache
    def export(name: str) -> ExportedTask:
        return ExportedTask.of(read_recipe(recipe_of(MODELS[name], tmp_path_factory.mktemp(name))))

    return export


def recipe_of(model: Model, folder: Path) -> Path:
    split = f"[split]\npoints = {list(model.points)}\n" + (f"[split.cuts]\n{model.cuts}" if model.cuts else "")
    write_recipe(folder, model.code, model.tables + split, inputs=model.inputs)
    text = (folder / "task.toml").read_text()
    (folder / "task.toml").write_text(text.replace("[update]", f"{model.training}[update]"))
    return folder


def mini_batches() -> BatchPlan:
    """The last of them half full."""
    mask = np.ones((STEPS, ROWS), np.float32)
    mask[-1, ROWS // 2 :] = 0
    return BatchPlan(np.random.default_rng(4).integers(0, SAMPLES, (STEPS, ROWS)), mask, SEED)


def scaled(exported: ExportedTask) -> ExportedTask:
    """The same, with a scale that changes what the model sees, where the task takes one."""
    random, scaling = np.random.default_rng(6), exported.task.scaling

    def some(scale: Scale | None) -> Scale | None:
        columns = 0 if scale is None else len(scale.mean)
        return scale and Scale(random.normal(size=columns).tolist(), random.uniform(0.5, 2, columns).tolist())

    scaling = Scaling(some(scaling.inputs), some(scaling.targets))
    return ExportedTask(msgspec.structs.replace(exported.task, scaling=scaling), exported.files)


def check_cuts(model: ExportedTask, cuts: Sequence[Cut | None]) -> None:
    """Trained through each cut, the model comes to what its training graph comes to."""
    plan = mini_batches()
    samples = random_samples(model.task).take(slice(0, SAMPLES))
    if model.task.backbone is not None:
        features = np.random.default_rng(7).normal(size=(SAMPLES, *model.task.trained_input.shape))
        samples = Samples(features.astype(np.float32), samples.labels)
    expected, expected_losses = train_whole(model, samples, plan)
    assert np.abs(expected - model.weights).max() > 0.01
    for cut in cuts:
        trained, losses = train_chained(model, cut, samples, plan)
        np.testing.assert_allclose(trained, expected, rtol=0, atol=TOLERANCE, err_msg=str(cut))
        np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=TOLERANCE, err_msg=str(cut))


@pytest.mark.parametrize("name", MODELS)
def test_every_cut_trains_as_the_whole_model(name: str, exported: Callable[[str], ExportedTask]):
    model = scaled(exported(name))
    check_cuts(model, [None, *model.task.split.cuts])


@pytest.mark.parametrize("name", MODELS)
def test_a_device_and_its_helper_train_every_cut_as_the_whole_model(name: str, exported: Callable[[str], ExportedTask]):
    model, plan = exported(name), mini_batches()
    samples = random_samples(model.task).take(slice(0, SAMPLES))
    expected, expected_losses = train_whole(model, samples, plan)
    exact = plan_of(model.task)
    for cut in exact.cuts:
        middle = middle_of(model, exact, model.weights)
        middle.open(SESSION, cut)
        exchange = DirectExchange(middle)
        engine = engine_of(model, exact, cut, exchange)
        trained, losses = engine.train(model.weights, samples, plan, model.rates)
        whole = trained + exchange.contribution().delta
        np.testing.assert_allclose(whole, expected, rtol=0, atol=TOLERANCE, err_msg=str(cut))
        np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=TOLERANCE, err_msg=str(cut))


def test_vectors_that_a_step_writes_and_never_reads_are_in_the_block_of_their_layer(tmp_path: Path):
    """Of each kind of spectral normalisation, a step reads one vector alone; evaluation reads both."""
    model = Model(
        "from torch import nn\nfrom torch.nn.utils import parametrizations\n\ndef build():\n    return nn.Sequential("
        "nn.Linear(8, 6), parametrizations.spectral_norm(nn.Linear(6, 6)), nn.Tanh(),"
        " nn.utils.spectral_norm(nn.Linear(6, 6)), nn.Tanh(), nn.Linear(6, 3))\n",
        ONE_INPUT,
        ("0", "2", "4"),
        "[label]\nclasses = 3\n",
        'optimiser = "sgd"\n',
    )
    exported = ExportedTask.of(read_recipe(recipe_of(model, tmp_path)))
    blocks = {each.name: each.block for each in exported.task.parameters if not each.trainable}
    assert sorted(blocks.values()) == [1, 1, 2, 2]
    check_cuts(exported, exported.task.split.cuts)


def test_loss_that_reads_samples_is_the_devices(tmp_path: Path):
    """An autoencoder whose samples the last block compares with what it makes of them."""
    model = Model(
        "from torch import nn\n\ndef build():\n    return nn.Sequential("
        "nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 8))\n",
        ONE_INPUT,
        ("1", "3"),
        '[label]\nkind = "reconstruction"\n',
        'optimiser = "nesterov"\n',
    )
    exported = ExportedTask.of(read_recipe(recipe_of(model, tmp_path)))
    assert [block.reads_inputs for block in exported.task.split.blocks] == [False, False, True]
    check_cuts(scaled(exported), exported.task.split.cuts)


def test_blocks_of_a_head_stand_behind_its_backbone(tmp_path: Path):
    """The second of them has no parameters."""
    more = f'{NAMED}\n[split]\npoints = ["head.0", "head.2"]\n'
    model = ExportedTask.of(read_recipe(write_backbone_recipe(tmp_path / "recipe", backbone=more)))
    assert [parameter.block for parameter in model.task.parameters] == [0, 0, 2, 2]
    check_cuts(model, model.task.split.cuts)


def test_a_block_that_changes_nothing_passes_everything_on_and_leaves_a_helper_nothing_to_send(tmp_path: Path):
    model = Model(
        "from torch import nn\n\ndef build():\n    return nn.Sequential("
        "nn.Linear(8, 6), nn.Identity(), nn.ReLU(), nn.Linear(6, 3))\n",
        ONE_INPUT,
        ("0", "1", "2"),
        "[label]\nclasses = 3\n",
        'optimiser = "sgd"\n',
    )
    exported = ExportedTask.of(read_recipe(recipe_of(model, tmp_path)))
    check_cuts(exported, exported.task.split.cuts)
    exact = plan_of(exported.task)
    for cut in exact.cuts:
        middle = middle_of(exported, exact, exported.weights)
        middle.open(SESSION, cut)
        samples = random_samples(exported.task).take(slice(0, SAMPLES))
        exchange = DirectExchange(middle)
        engine = engine_of(exported, exact, cut, exchange)
        engine.train(exported.weights, samples, mini_batches(), exported.rates)
        assert exchange.contribution() is None, "there are no weights in these blocks"


def test_pass_for_another_part_moves_buffers_by_going_forward_where_nothing_in_front_trains(
    exported: Callable[[str], ExportedTask],
):
    """As by the backward pass that bundles of older exports take for it: they give no buffers on the way forward."""
    model = exported("adversaries")
    forward = onnx.load_from_string(model.files[forward_file(0)])
    outputs, _ = forward.graph.output
    del forward.graph.output[:]
    forward.graph.output.append(outputs)
    older = BlockRunner(model.task, {**model.files, forward_file(0): forward.SerializeToString()}, [0])
    ours = BlockRunner(model.task, {**model.files, backward_file(0): model.files[backward_file(1)]}, [0])
    random = np.random.default_rng(9)
    samples = random.normal(size=(ROWS, 8)).astype(np.float32)
    gradient = random.normal(size=(ROWS, 8)).astype(np.float32)
    own, state = ours.weights_of(0, model.weights), ours.new_state(0)
    moved, expected = (
        each.backward(0, own, state, samples, gradient, seed=SEED, rates=model.rates, update=False)
        for each in (ours, older)
    )
    np.testing.assert_array_equal(moved.weights, expected.weights)
    assert not np.array_equal(moved.weights, own)
    assert moved.state == state
    with pytest.raises(GraphError, match=r"block_0_backward\.onnx takes weights"):
        ours.backward(0, own, state, samples, gradient, seed=SEED, rates=model.rates)


def test_pass_for_another_part_takes_the_gradient_through_what_does_not_train(exported: Callable[[str], ExportedTask]):
    """As the backward pass does that trains, which bundles of older exports take for it."""
    model = exported("adversaries")
    blocks = [block for block in range(len(model.task.split.blocks)) if passing_file(block) in model.files]
    assert [model.task.split.blocks[block].part for block in blocks] == ["discriminator"] * len(blocks) != []
    without = {name: size for name, size in model.task.files.items() if name not in map(passing_file, blocks)}
    older = BlockRunner(msgspec.structs.replace(model.task, files=without), model.files, blocks)
    nothing = model.files[forward_file(blocks[0])]
    ours = BlockRunner(model.task, {**model.files, **dict.fromkeys(map(backward_file, blocks), nothing)}, blocks)
    random = np.random.default_rng(9)
    raw = random.normal(size=(ROWS, 8)).astype(np.float32)
    for block in blocks:
        taken, given = (model.task.split.blocks[each].output_shape for each in (block - 1, block))
        activations = random.normal(size=(ROWS, *taken)).astype(np.float32)
        gradient = random.normal(size=(ROWS, *given)).astype(np.float32)
        own, state = older.weights_of(block, model.weights), older.new_state(block)
        passed, expected = (
            each.backward(block, own, state, activations, gradient, seed=SEED, rates=model.rates, raw=raw, update=False)
            for each in (ours, older)
        )
        np.testing.assert_array_equal(passed.input_gradient, expected.input_gradient)
        np.testing.assert_array_equal(passed.weights, expected.weights)
        assert passed.input_gradient.any()
        assert passed.state == state


@pytest.mark.parametrize("update", [True, False])
def test_block_without_buffers_behind_such_a_block_does_nothing_where_it_does_not_train(
    exported: Callable[[str], ExportedTask], *, update: bool
):
    model = exported("adversaries")
    runner = BlockRunner(model.task, model.files, [1])
    random = np.random.default_rng(9)
    activations = random.normal(size=(ROWS, 8)).astype(np.float32)
    gradient = random.normal(size=(ROWS, 5)).astype(np.float32)
    own, state = runner.weights_of(1, model.weights), runner.new_state(1)
    passed = runner.backward(1, own, state, activations, gradient, seed=SEED, rates=model.rates, update=update)
    assert np.array_equal(passed.weights, own) is not update
    assert passed.input_gradient.any() == update
    assert passed.input_gradient.shape == activations.shape


class Twice(nn.Module):
    """Runs a layer two times and then another, and goes on after errors."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.behind = nn.Linear(4, 4), nn.Linear(4, 2)
        self.has_run_behind = False

    def forward(self, inputs: Tensor) -> Tensor:
        try:
            found = self.layer(self.layer(inputs))
        except Exception:
            found = inputs
        self.has_run_behind = True
        return self.behind(found)


def test_pass_of_a_block_ends_with_the_last_run_of_its_point_whatever_the_model_catches():
    module, inputs = Twice(), torch.ones(3, 4)
    with caught_alone(module, "layer", 2) as found:
        module(inputs)
    assert not module.has_run_behind
    first = module.layer(inputs)
    assert torch.equal(joined_runs(found), torch.stack([first, module.layer(first)], dim=1))
    module(inputs)
    assert module.has_run_behind, "what caught it is gone"
