"""The exporter: what it writes must train as torch does, be plain ONNX, and be the same bytes every time."""

import re
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.numpy import load
from torch import nn

from bundle_runtime.log_priors import BALANCE
from fleet_protocol.bundle import verify_bundle
from fleet_protocol.bundle_files import DESCRIPTION_FILE, EVALUATE_FILE, PREDICT_FILE, TRAIN_FILE, WEIGHTS_FILE
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.task_description import TaskDescription
from workbench import cli, recipe_folder
from workbench.export.bundle_writer import export_bundle
from workbench.export.recipe.losses import LOSSES
from workbench.export.recipe.recipe import read_recipe
from workbench.export.recipe.task_file import NamedLoss
from workbench.recipe_folder import find_recipe

DIGITS = find_recipe("digits")
MODELS = (TRAIN_FILE, EVALUATE_FILE, PREDICT_FILE)
SAMPLES, STEPS, BATCH, LEARNING_RATE = 150, 20, 16, 0.1
SMOOTHING = 0.1  # as the recipe for digits says

LAYERS_OF_EVERY_KIND = """
from torch import nn

def build():
    return nn.Sequential(nn.Linear(64, 24), nn.LayerNorm(24), nn.GELU(), nn.Linear(24, 12, bias=False), nn.Tanh(),
                         nn.Linear(12, 10))
"""
LGAMMA_INSIDE = """
import torch
from torch import nn

class LogGamma(nn.Module):
    def forward(self, inputs):
        return torch.lgamma(inputs.abs() + 1)

def build():
    return nn.Sequential(nn.Linear(64, 10), nn.Sequential(nn.ReLU(), LogGamma()))
"""
DEPENDS_ON_VALUE = """
from torch import nn

class DependsOnValue(nn.Module):
    def forward(self, inputs):
        return inputs * float(inputs.sum())

def build():
    return nn.Sequential(nn.Linear(64, 10), DependsOnValue())
"""


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("digits")
    export_bundle(DIGITS, out)
    return out


def read_files(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.iterdir()}


def describe(bundle: Path) -> TaskDescription:
    return verify_bundle(read_files(bundle))


def initial_weights(bundle: Path) -> np.ndarray:
    tensors = load((bundle / WEIGHTS_FILE).read_bytes())
    return np.concatenate([tensors[parameter.name].ravel() for parameter in describe(bundle).parameters])


def samples() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    return random.random((SAMPLES, 64), dtype=np.float32), random.integers(0, 10, SAMPLES)


def batches() -> tuple[np.ndarray, np.ndarray]:
    """Row indices and mask; the last mini-batch has 5 real rows, then padding."""
    rows = np.random.default_rng(4).integers(0, SAMPLES, (STEPS, BATCH))
    mask = np.ones((STEPS, BATCH), dtype=np.float32)
    mask[-1, 5:] = 0
    return rows, mask


def run(bundle: Path, file: str, **inputs: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(bundle / file), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def train(bundle: Path, rows: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
    inputs, labels = samples()
    learning_rate = np.array(LEARNING_RATE, dtype=np.float32)
    weights = initial_weights(bundle)
    return run(
        bundle,
        TRAIN_FILE,
        weights=weights,
        inputs=inputs,
        labels=labels,
        batches=rows,
        mask=mask,
        learning_rate=learning_rate,
    )


def train_with_torch(
    module: nn.Module, rows: np.ndarray, mask: np.ndarray, balance: float = BALANCE
) -> tuple[np.ndarray, np.ndarray]:
    inputs, labels = map(torch.from_numpy, samples())
    log_prior = torch.log((torch.bincount(labels, minlength=10) + 1) / (len(labels) + 10))
    optimiser = torch.optim.SGD(module.parameters(), lr=LEARNING_RATE)
    losses = []
    for row, real in zip(rows, mask > 0, strict=True):
        chosen = torch.from_numpy(row[real])
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(
            module(inputs[chosen]) + balance * log_prior, labels[chosen], label_smoothing=SMOOTHING
        )
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    flat = torch.cat([parameter.detach().ravel() for parameter in module.parameters()])
    return flat.numpy(), np.array(losses)


def write_recipe(folder: Path, model: str | None = None, edit: tuple[str, str] = ("", "")) -> Path:
    """A copy of the recipe for digits with another model, or with one place of task.toml changed."""
    folder.mkdir()
    (folder / "model.py").write_text(model or (DIGITS / "model.py").read_text())
    (folder / "task.toml").write_text((DIGITS / "task.toml").read_text().replace(*edit))
    return folder


def test_committed_bundle_is_whole_and_small():
    bundle = DIGITS / "bundle"
    assert describe(bundle).task == "digits"
    assert sum(map(len, read_files(bundle).values())) < 300_000


def test_committed_bundle_is_what_the_recipe_exports(exported: Path):
    committed = DIGITS / "bundle"
    without_hashes = [msgspec.structs.replace(describe(bundle), files={}) for bundle in (committed, exported)]
    assert without_hashes[0] == without_hashes[1]
    np.testing.assert_allclose(initial_weights(committed), initial_weights(exported), rtol=0, atol=1e-6)
    for old, new in zip(train(committed, *batches()), train(exported, *batches()), strict=True):
        np.testing.assert_allclose(old, new, rtol=0, atol=1e-6)


def test_same_recipe_gives_same_bytes(exported: Path, tmp_path: Path):
    export_bundle(DIGITS, tmp_path)
    assert read_files(tmp_path) == read_files(exported)


def test_scan_trains_as_torch_does(exported: Path):
    trained, losses = train(exported, *batches())
    expected, expected_losses = train_with_torch(read_recipe(DIGITS).module, *batches())
    assert np.abs(trained - initial_weights(exported)).max() > 1e-3
    np.testing.assert_allclose(trained, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=1e-5)


def test_other_layers_train_as_torch_does(tmp_path: Path):
    recipe = write_recipe(tmp_path / "recipe", LAYERS_OF_EVERY_KIND)
    export_bundle(recipe, tmp_path / "out")
    trained, _ = train(tmp_path / "out", *batches())
    expected, _ = train_with_torch(read_recipe(recipe).module, *batches())
    np.testing.assert_allclose(trained, expected, rtol=0, atol=1e-5)


def test_plain_cross_entropy_trains_as_torch_does(tmp_path: Path):
    recipe = write_recipe(tmp_path / "recipe", edit=('loss = "balanced_cross_entropy"', 'loss = "cross_entropy"'))
    export_bundle(recipe, tmp_path / "out")
    trained, losses = train(tmp_path / "out", *batches())
    expected, expected_losses = train_with_torch(read_recipe(recipe).module, *batches(), balance=0.0)
    np.testing.assert_allclose(trained, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=1e-5)


def test_numbers_of_samples_steps_and_rows_are_free(exported: Path):
    rows, mask = batches()
    one_by_one = train(exported, rows[:1, :1], mask[:1, :1])
    assert one_by_one[1].shape == (1,)
    expected, _ = train_with_torch(read_recipe(DIGITS).module, rows[:1, :1], mask[:1, :1])
    np.testing.assert_allclose(one_by_one[0], expected, rtol=0, atol=1e-6)


def test_padding_alone_changes_nothing(exported: Path):
    rows, mask = batches()
    trained, losses = train(exported, rows[:3], np.zeros_like(mask[:3]))
    np.testing.assert_array_equal(trained, initial_weights(exported))
    np.testing.assert_array_equal(losses, np.zeros(3))


@pytest.mark.parametrize("count", [1, SAMPLES])
def test_evaluate_and_predict_agree_with_torch(exported: Path, count: int):
    inputs, labels = (values[:count] for values in samples())
    weights = initial_weights(exported)
    with torch.no_grad():
        expected = read_recipe(DIGITS).module(torch.from_numpy(inputs))
    expected_losses = nn.functional.cross_entropy(
        expected, torch.from_numpy(labels), reduction="none", label_smoothing=SMOOTHING
    )

    (scores,) = run(exported, PREDICT_FILE, weights=weights, inputs=inputs)
    losses, correct = run(exported, EVALUATE_FILE, weights=weights, inputs=inputs, labels=labels)

    np.testing.assert_allclose(scores, expected.numpy(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(losses, expected_losses.numpy(), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(correct, (expected.numpy().argmax(axis=1) == labels).astype(np.float32))


@pytest.mark.parametrize("file", MODELS)
def test_graphs_hold_nothing_but_standard_operators(exported: Path, file: str):
    model = onnx.load(exported / file)
    assert {entry.domain for entry in model.opset_import} == {""}
    assert model.ir_version <= 10
    assert not model.functions
    nodes = list(all_nodes(model.graph))
    assert {node.domain for node in nodes} == {""}
    assert not {"Identity", "Transpose", "Expand"} & {node.op_type for node in nodes}


def all_nodes(graph: onnx.GraphProto):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from all_nodes(attribute.g)


@pytest.mark.parametrize("file", [*MODELS, DESCRIPTION_FILE])
def test_files_tell_nothing_about_the_machine(exported: Path, file: str):
    content = (exported / file).read_bytes()
    for trace in (b"/", b"torch", b".py", str(Path.home()).encode()):
        assert trace not in b" ".join(re.findall(rb"[ -~]{4,}", content))  # shorter runs are numbers by chance


def test_operator_unknown_to_onnx_is_named_with_its_module(tmp_path: Path):
    recipe = write_recipe(tmp_path / "recipe", LGAMMA_INSIDE)
    with pytest.raises(ConfigurationError, match=r"train\.onnx: module '1\.1' \(LogGamma\).*lgamma.*; use Stirling"):
        export_bundle(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_module_that_cannot_be_traced_is_named(tmp_path: Path):
    recipe = write_recipe(tmp_path / "recipe", DEPENDS_ON_VALUE)
    with pytest.raises(ConfigurationError, match=r"train\.onnx: module '1' \(DependsOnValue\) can't be exported"):
        export_bundle(recipe, tmp_path / "out")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (("steps = 60", "step = 60"), r"task\.toml: unknown key 'step' in \[training\]; did you mean 'steps'"),
        (
            ("shape = [64]", "shape = [63]"),
            r"model\.py: forward\(\) of f32\[2, 63\].*; input\.shape \[63\].* in task\.toml must fit",
        ),
        (("classes = 10", "classes = 9"), r"task\.toml: label\.classes is 9"),
        (("batch_size = 16", "batch_size = 0"), r"training\.batch_size"),
        (
            ('loss = "balanced_cross_entropy"', 'loss = "hinge"'),
            r"Invalid enum value 'hinge' - at `loss`; choose one of balanced_cross_entropy, binary_cross_entropy",
        ),
        (
            ("classes = 10", 'classes = 10\nkind = "multi_label"'),
            r"loss 'balanced_cross_entropy' is for label\.kind class",
        ),
    ],
)
def test_wrong_task_file_names_the_key(tmp_path: Path, edit: tuple[str, str], message: str):
    with pytest.raises(ConfigurationError, match=message):
        read_recipe(write_recipe(tmp_path / "recipe", edit=edit))


def test_every_loss_that_may_be_named_is_there():
    assert set(get_args(NamedLoss)) == set(LOSSES)


def test_model_file_that_fails_is_named(tmp_path: Path):
    recipe = write_recipe(tmp_path / "recipe", "def build():\n    return 3\n")
    with pytest.raises(ConfigurationError, match=r"model\.py: build\(\) must return a torch\.nn\.Module"):
        read_recipe(recipe)


def test_recipes_are_found_in_a_wheel_too(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(recipe_folder, "ROOTS", (tmp_path / "recipes", tmp_path / "models"))
    (tmp_path / "recipes").mkdir()
    installed = write_recipe(tmp_path / "recipes" / "shipped")
    assert find_recipe("shipped") == installed
    assert find_recipe(str(installed)) == installed
    with pytest.raises(ConfigurationError, match="edgeflock ships shipped"):
        find_recipe("missing")


def test_command_reports_in_one_line(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["edgeflock", "export", "no-such-recipe", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    errors = capsys.readouterr().err
    assert "no-such-recipe" in errors
    assert errors.count("\n") == 1
