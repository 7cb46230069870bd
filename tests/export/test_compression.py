"""Adapters, factors and pruning: the graphs compute what their papers say, and the plain model comes back out."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.numpy import save_file as save
from torch import Tensor, nn
from torch.nn import functional

from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import BundleRunner
from fleet_protocol.bundle_files import PLAIN_FILE, WEIGHTS_FILE
from fleet_protocol.codec import read_weights, write_weights
from fleet_protocol.errors import ConfigurationError
from tests.support.recipes import ONE_INPUT, write_recipe
from tests.support.training import TOLERANCE, Rates, initial_weights, train_exported, train_with_torch
from workbench.cli import main
from workbench.export.bundle_writer import export_bundle
from workbench.export.recipe.recipe import Recipe, read_recipe
from workbench.simulation.show import Request, prepare
from workbench.simulation.simulation import Options

MODEL = """
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.kernels = nn.Conv2d(2, 4, 3)
        self.head = nn.Linear(16, 4)

    def forward(self, pictures):
        return self.head(self.kernels(pictures).relu().flatten(1))

def build():
    return Model()
"""
PICTURES = ONE_INPUT.replace("[8]", "[2, 4, 4]")
CLASSES = "[label]\nclasses = 4\n"
UNSCALED = '[scaling]\ninputs = "off"\n'
TABLES = {
    "adapters": '[compression.adapters]\nrank = 2\nalpha = 3.0\nparameters = ["kernels.weight", "head.*"]\n',
    "factors": "[compression.factors]\nrank = 1\n",
    "pruning": "[compression.pruning]\nkeep = 0.25\n",
    "pruning as a whole": '[compression.pruning]\nkeep = 0.25\nscope = "model"\n',
}


def written(folder: Path, tables: str, *, first: str = 'loss = "cross_entropy"') -> Path:
    return write_recipe(folder, MODEL, CLASSES + UNSCALED + tables, first=first, inputs=PICTURES)


@pytest.fixture(scope="module")
def plain_tensors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """What `build()` draws with the recipe's seed."""
    recipe = read_recipe(written(tmp_path_factory.mktemp("plain"), ""))
    return {name: value.clone() for name, value in recipe.tensors.items()}


def lora(frozen: dict[str, Tensor], given: dict[str, Tensor], layer: str) -> Tensor:
    """Equation 3 of the paper."""
    outwards, inwards = (given[f"{layer}.parametrizations.weight.original{place}"] for place in (0, 1))
    return frozen[f"{layer}.weight"] + 3.0 / 2 * (outwards @ inwards).reshape(frozen[f"{layer}.weight"].shape)


def fedpara(frozen: dict[str, Tensor], given: dict[str, Tensor], layer: str) -> Tensor:
    """Propositions 1 and 3 of the paper."""
    count = 6 if layer == "kernels" else 4
    parts = [given[f"{layer}.parametrizations.weight.original{place}"] for place in range(count)]
    if layer == "head":
        return (parts[0] @ parts[1].T) * (parts[2] @ parts[3].T)
    halves = []
    for outwards, inwards, core in (parts[:3], parts[3:]):
        small = core.reshape(core.shape[0], -1, 3, 3)
        halves.append(torch.einsum("abxy,oa,ib->oixy", small, outwards, inwards))
    return halves[0] * halves[1]


def largest(frozen: dict[str, Tensor], layer: str, *, together: bool) -> Tensor:
    """Which entries of a layer's weight are among the quarter of largest magnitude."""
    values = [frozen[f"{name}.weight"].abs() for name in (("kernels", "head") if together else (layer,))]
    flat = torch.cat([each.flatten() for each in values])
    return frozen[f"{layer}.weight"].abs() >= flat.sort(descending=True).values[round(0.25 * len(flat)) - 1]


def pruned(frozen: dict[str, Tensor], given: dict[str, Tensor], layer: str, *, together: bool) -> Tensor:
    mask = largest(frozen, layer, together=together)
    return torch.zeros(mask.shape).masked_scatter(mask, given[f"{layer}.parametrizations.weight.original"])


FORMULAS = {
    "adapters": lora,
    "factors": fedpara,
    "pruning": lambda frozen, given, layer: pruned(frozen, given, layer, together=False),
    "pruning as a whole": lambda frozen, given, layer: pruned(frozen, given, layer, together=True),
}


class ByFormula(nn.Module):
    """The network with weights by a formula, of the same numbers in the same order as a recipe trains."""

    def __init__(self, recipe: Recipe, frozen: dict[str, Tensor], formula: Callable[..., Tensor]) -> None:
        super().__init__()
        self.names = [each.name for each in recipe.parameters]
        self.numbers = nn.ParameterList([recipe.tensors[name].clone() for name in self.names])
        self.frozen, self.formula = frozen, formula

    def weight(self, layer: str) -> Tensor:
        return self.formula(self.frozen, dict(zip(self.names, self.numbers, strict=True)), layer)

    def forward(self, pictures: Tensor) -> Tensor:
        given = dict(zip(self.names, self.numbers, strict=True))
        features = functional.conv2d(pictures, self.weight("kernels"), given["kernels.bias"]).relu().flatten(1)
        return functional.linear(features, self.weight("head"), given["head.bias"])


@pytest.mark.parametrize("name", TABLES)
def test_training_steps_are_those_of_the_formula_by_autograd(name: str, plain_tensors, tmp_path: Path):
    recipe = read_recipe(written(tmp_path, TABLES[name]))
    recipe.set_training(True)
    by_formula = replace(recipe, module=ByFormula(recipe, plain_tensors, FORMULAS[name]))
    np.testing.assert_array_equal(initial_weights(recipe), initial_weights(by_formula))
    trained, losses = train_exported(recipe)
    expected, expected_losses = train_with_torch(by_formula, functional.cross_entropy, Rates(), torch.optim.SGD)
    assert np.abs(expected - initial_weights(recipe)).max() > 1e-3
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(trained, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", TABLES)
def test_fewer_numbers_train_and_they_begin_as_the_method_says(name: str, plain_tensors, tmp_path: Path):
    recipe = read_recipe(written(tmp_path, TABLES[name]))
    assert sum(each.size for each in recipe.parameters) < sum(each.numel() for each in plain_tensors.values())
    for layer in ("kernels", "head"):
        weight, drawn = recipe.module.get_submodule(layer).weight.detach(), plain_tensors[f"{layer}.weight"]
        if name == "adapters":
            assert torch.equal(weight, drawn)
        elif name == "factors":
            assert float(weight.square().mean()) == pytest.approx(float(drawn.square().mean()), rel=1e-3)
        else:
            assert torch.equal(weight, drawn * largest(plain_tensors, layer, together="whole" in name))


def test_each_tensor_keeps_an_entry_where_all_are_compared(tmp_path: Path):
    shrunk = MODEL.replace(
        "        self.head", "        nn.init.constant_(self.kernels.weight, 1e-6)\n        self.head"
    )
    tables = CLASSES + TABLES["pruning as a whole"]
    recipe = read_recipe(write_recipe(tmp_path, shrunk, tables, inputs=PICTURES))
    assert recipe.tensors["kernels.parametrizations.weight.original"].numel() >= 1


@dataclass(frozen=True, slots=True)
class Refused:
    """Tables of task.toml, what is said of them, and some that follow the advice."""

    wrong: str
    sentence: str
    right: str
    model: str = MODEL
    first: str = ""


TIED = """
from torch import nn

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.flatten = nn.Flatten()
        self.there, self.back = nn.Linear(32, 32), nn.Linear(32, 32)
        self.back.weight = self.there.weight
        self.head = nn.Linear(32, 4)

    def forward(self, pictures):
        return self.head(self.back(self.there(self.flatten(pictures)).relu()))

def build():
    return Tied()
"""
ADAPTERS = "[compression.adapters]\nrank = {}\nparameters = [{}]\n"
REFUSED = {
    "vector": Refused(
        ADAPTERS.format(1, '"head.bias"'),
        r"compression\.adapters: the pattern 'head\.bias' fits no matrix or kernel .*; the nearest are 'head\.weight'",
        ADAPTERS.format(1, '"head.weight"'),
    ),
    "nothing": Refused(
        ADAPTERS.format(1, '"tail.*"'), r"the pattern 'tail\.\*' fits no matrix", ADAPTERS.format(1, '"head.*"')
    ),
    "frozen": Refused(
        ADAPTERS.format(1, '"head.*"'),
        r"fits no matrix or kernel that trains; .*; the nearest are 'kernels\.weight'",
        ADAPTERS.format(1, '"kernels.*"'),
        first='trainable = ["kernels.*"]',
    ),
    "rank": Refused(
        ADAPTERS.format(4, '"head.*"'),
        r"with rank 4 the parameter 'head\.weight' \[4, 16\] takes 80 numbers in place of 64; lower the rank to 3",
        ADAPTERS.format(3, '"head.*"'),
    ),
    "rank of factors": Refused(
        "[compression.factors]\nrank = 2\n",
        r"'kernels\.weight' \[4, 2, 3, 3\] takes 96 numbers in place of 72; lower the rank to 1",
        "[compression.factors]\nrank = 1\n",
    ),
    "two tables": Refused(
        ADAPTERS.format(1, '"head.*"') + "[compression.pruning]\nkeep = 0.5\n",
        r"'head\.weight' is in adapters and pruning of \[compression\]; let the patterns of one of them fit it",
        ADAPTERS.format(1, '"head.*"') + '[compression.pruning]\nkeep = 0.5\nparameters = ["kernels.*"]\n',
    ),
    "one tensor twice": Refused(
        ADAPTERS.format(1, '"*"'),
        r"'there\.weight' and 'back\.weight' are one tensor, and would be two; leave it out",
        ADAPTERS.format(1, '"head.*"'),
        TIED,
    ),
    "solved head": Refused(
        "[compression.pruning]\nkeep = 0.5\n[solved_head]\n",
        r"\[compression\] says what devices train, and with \[solved_head\] they train nothing; leave one out",
        "[compression.pruning]\nkeep = 0.5\n",
    ),
    "empty table": Refused(
        "[compression]\n", r"\[compression\] says nothing; write a table \[compression\.adapters\], ", ""
    ),
    "everything kept": Refused(
        "[compression.pruning]\nkeep = 1.0\n",
        r"compression\.pruning\.keep.* < 1|< 1\.0.*keep|keep.*below 1",
        "[compression.pruning]\nkeep = 0.9\n",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_compression_that_can_not_be_is_refused_with_words_that_help(name: str, tmp_path: Path):
    refused = REFUSED[name]

    def read(folder: str, tables: str) -> None:
        where = write_recipe(
            tmp_path / folder, refused.model, CLASSES + UNSCALED + tables, first=refused.first, inputs=PICTURES
        )
        read_recipe(where)

    with pytest.raises(ConfigurationError) as raised:
        read("wrong", refused.wrong)
    assert re.search(refused.sentence, str(raised.value)), str(raised.value)
    read("right", refused.right)


WRONG_WEIGHTS = {
    "no file": (None, r"name what `broker-coordinator tasks export` wrote"),
    "no weights": ("text", r"not a safetensors file .*; name what"),
    "unknown": ({"tail.bias": np.zeros(4, np.float32)}, r"the model has no tensor 'tail\.bias'; the nearest are"),
    "shape": ({"head.bias": np.zeros(3, np.float32)}, r"'head\.bias' is torch\.float32 \[3\], and .* \[4\] in the mod"),
    "not finite": ({"head.bias": np.full(4, np.nan, np.float32)}, r"'head\.bias' contains NaN or infinity; name an"),
}


@pytest.mark.parametrize("name", WRONG_WEIGHTS)
def test_given_weights_of_another_model_are_refused_with_words_that_help(name: str, tmp_path: Path):
    content, sentence = WRONG_WEIGHTS[name]
    weights = tmp_path / "weights.safetensors"
    if isinstance(content, dict):
        save(content, weights)
    elif content:
        weights.write_text(content)
    recipe = written(tmp_path / "recipe", "")
    with pytest.raises(ConfigurationError, match=sentence):
        read_recipe(recipe, weights=weights)
    save({"head.bias": np.ones(4, np.float32)}, weights)
    assert read_recipe(recipe, weights=weights).tensors["head.bias"].tolist() == [1, 1, 1, 1]


def run_command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The exit status of `edgeflock`."""
    monkeypatch.setattr("sys.argv", ["edgeflock", *map(str, words)])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def fleet_after(bundle: Path, data: Path) -> tuple[float, float, bytes]:
    """The first score of a simulated fleet, the last, and the model as `tasks export` writes it."""
    request = Request(6, ["pi-4"], None, str(bundle), str(data), None, None, None, None, None, as_json=True)
    simulation = prepare(request, Options(seed=1, seconds=60 * 3600, score_every=30))
    summary = simulation.run().summary
    parameters = load_bundle(bundle).description.parameters
    return summary.first_score, summary.score, write_weights(simulation.world.coordinator.model, parameters)


def samples_in(folder: Path) -> Path:
    """A file of pictures of four classes, by which of their halves are bright."""
    random = np.random.default_rng(5)
    inputs = random.uniform(-1, 1, (400, 2, 4, 4)).astype(np.float32)
    sums = np.stack([inputs[:, :, :2].sum((1, 2, 3)), inputs[:, :, :, :2].sum((1, 2, 3))])
    np.savez(folder / "data.npz", inputs=inputs, labels=(sums > 0).T @ np.array([1, 2]))
    return folder / "data.npz"


@pytest.mark.long
def test_fleet_learns_a_gaussian_over_the_last_layer_beside_adapters(tmp_path: Path):
    export_bundle(written(tmp_path / "recipe", TABLES["adapters"] + "[posterior]\n"), tmp_path / "bundle")
    bundle, data = str(tmp_path / "bundle"), str(samples_in(tmp_path))
    request = Request(6, ["pi-4"], None, bundle, data, None, None, None, None, None, as_json=True)
    summary = prepare(request, Options(seed=1, seconds=400 * 3600, updates=100)).run().summary
    assert summary.score > 0.6


def test_fleet_learns_is_pruned_and_goes_on_and_comes_back_as_the_plain_model(tmp_path: Path, monkeypatch):
    data, trained, merged = samples_in(tmp_path), tmp_path / "trained.safetensors", tmp_path / "plain.safetensors"
    recipe, whole, smaller = written(tmp_path / "recipe", ""), tmp_path / "whole", tmp_path / "smaller"
    export_bundle(recipe, whole)
    _, learned, weights = fleet_after(whole, data)
    trained.write_bytes(weights)
    written(recipe, "[compression.pruning]\nkeep = 0.3\n")
    assert run_command(monkeypatch, "export", recipe, "--weights", trained, "--out", smaller) == 0
    went_on, ended, weights = fleet_after(smaller, data)
    assert went_on > (0.25 + learned) / 2
    assert ended >= went_on
    assert weights != (smaller / WEIGHTS_FILE).read_bytes()
    ending = tmp_path / "ended.safetensors"
    ending.write_bytes(weights)
    assert run_command(monkeypatch, "merge", smaller, "--weights", ending, "--out", merged) == 0
    again = read_recipe(written(recipe, ""), weights=merged)
    inputs, bundle = np.load(data)["inputs"], load_bundle(smaller)
    expected = BundleRunner(bundle.description, bundle.files).predict(
        read_weights(weights, bundle.description.parameters), inputs[:20]
    )
    found = again.module(torch.from_numpy(inputs[:20])).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    kept = np.mean(load_file(merged)["kernels.weight"] != 0)
    assert kept == pytest.approx(0.3, abs=0.02)


def test_merge_of_a_plain_bundle_says_that_its_weights_are_plain(tmp_path: Path, monkeypatch, capsys):
    bundle = Path("models/digits/bundle")
    assert PLAIN_FILE not in load_bundle(bundle).files
    words = ("merge", bundle, "--weights", bundle / WEIGHTS_FILE, "--out", tmp_path / "plain.safetensors")
    assert run_command(monkeypatch, *words) == 2
    assert "has no [compression]: its weights are those of the plain model as they are" in capsys.readouterr().err
