"""Pictures that a version draws: those of torch, from a graph of the drawing part alone, on the command line."""

import os
import re
import sqlite3
import struct
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from benchmarks.split_gans.drawing import load
from broker_coordinator import cli as coordinator_cli
from broker_coordinator.admission.settings import AdmissionSettings
from broker_coordinator.distribution.signed_messages import MessageSigner
from broker_coordinator.serving.coordinator import Coordinator
from broker_coordinator.storage.journal import Journal
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.drawing import Drawer
from fleet_protocol.codec import read_weights, write_weights
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import SigningKey
from tests.support.fleet import FLEET, SHARD
from tests.support.tiny_pair import write_tiny_pair
from workbench import cli
from workbench.drawing import drawn_pictures
from workbench.export.bundle_writer import export_bundle
from workbench.export.recipe.recipe import read_recipe

SHIPPED = Path(__file__).parents[2] / "models" / "digits" / "bundle"


@pytest.fixture(scope="module")
def recipe_folder(tmp_path_factory) -> Path:
    """Of a pair with two clusters of devices, in one block, whose pictures are not bounded."""
    folder = write_tiny_pair(tmp_path_factory.mktemp("recipe") / "pair")
    model, task = folder / "model.py", folder / "task.toml"
    model.write_text(model.read_text().replace("nn.Linear(WIDE, 784), nn.Sigmoid()", "nn.Linear(WIDE, 784)"))
    task.write_text(task.read_text().partition("[split]")[0] + "[clusters]\nmost = 2\n")
    return folder


@pytest.fixture(scope="module")
def bundle(recipe_folder: Path) -> Bundle:
    export_bundle(recipe_folder, recipe_folder / "bundle")
    return load_bundle(recipe_folder / "bundle")


@pytest.fixture(scope="module")
def weights(bundle: Bundle) -> np.ndarray:
    """Other weights than the bundle's own."""
    own = read_weights(bundle.weights, bundle.description.parameters)
    return own + np.random.default_rng(3).normal(0, 0.3, own.shape).astype(np.float32)


@pytest.fixture
def asked(bundle: Bundle, recipe_folder: Path, weights, tmp_path: Path) -> list[str]:
    """A command line that draws, into `tmp_path / "out"`."""
    (tmp_path / "model.safetensors").write_bytes(write_weights(weights, bundle.description.parameters))
    return [
        "--task", str(recipe_folder / "bundle"), "--weights", str(tmp_path / "model.safetensors"),
        "--out", str(tmp_path / "out"),
    ]  # fmt: skip


@pytest.fixture
def database(bundle: Bundle, recipe_folder: Path, tmp_path: Path) -> list[str]:
    """The same from the database of a coordinator that has version 0 alone."""
    with Journal.open(tmp_path / "coordinator.db") as journal:
        settings = AdmissionSettings(FLEET, SHARD, open_enrolment=True, maximum_devices=1)
        Coordinator(journal, [bundle], MessageSigner(SigningKey.generate(), FLEET, SHARD), settings)
    (tmp_path / "coordinator.toml").write_text(
        f'fleet = "{FLEET}"\nkey_file = "key"\ndatabase = "coordinator.db"\n[broker]\nhost = "localhost"\n'
        f'[[tasks]]\nbundle = "{recipe_folder / "bundle"}"\n'
    )
    return ["--task", "mnist_gan", "--config", str(tmp_path / "coordinator.toml"), "--out", str(tmp_path / "out")]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command with these words, and gives what it said of an error; it has to end with `code`."""

    def running(words: list[str], code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["edgeflock", "generate", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert (ended.value.code or 0) == code
        return re.sub(r"[\s│]+", " ", capsys.readouterr().err)

    return running


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_pictures_are_those_of_torch(bundle, recipe_folder, weights):
    recipe = read_recipe(recipe_folder)
    load(recipe, weights)
    recipe.module.eval()
    latent = np.random.default_rng([5, 7]).standard_normal((3, 4), np.float32)
    with torch.no_grad():
        expected = recipe.module.get_submodule("generator")(torch.from_numpy(latent), torch.full([3], 7))
    found = np.stack(list(Drawer(bundle, weights).draw(7, 3, seed=5)))
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-6)


def test_all_classes_are_drawn_with_a_grid_and_a_class_alone_is_drawn_as_among_them(run, asked, tmp_path):
    run([*asked, "--count", "3"])
    everything = files(tmp_path / "out")
    assert len(everything) == 31
    assert len({name[:3] for name in everything}) == 11
    run([*asked, "--out", str(tmp_path / "one"), "--count", "2", "--label", "7"])
    one = files(tmp_path / "one")
    assert set(one) == {"007-00000.png", "007-00001.png", "grid.png"}
    assert all(everything[name] == content for name, content in one.items() if name != "grid.png")
    run([*asked, "--out", str(tmp_path / "other"), "--count", "2", "--label", "7", "--seed", "1"])
    assert files(tmp_path / "other")["007-00000.png"] != one["007-00000.png"]


def test_versions_and_clusters_are_those_that_the_coordinator_exports(run, database, recipe_folder, tmp_path):
    run([*database, "--version", "0", "--cluster", "2", "--count", "1"])
    configuration, exported = str(tmp_path / "coordinator.toml"), str(tmp_path / "model.safetensors")
    words = ["tasks", "--config", configuration, "export", "mnist_gan", exported, "--version", "0", "--cluster", "2"]
    assert coordinator_cli.main(words) == 0
    own = ["--task", str(recipe_folder / "bundle"), "--weights", exported, "--out", str(tmp_path / "own")]
    run([*own, "--count", "1"])
    assert files(tmp_path / "out") == files(tmp_path / "own")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--version", "5"], "version 5 of task 'mnist_gan' is not in the journal"),
        (["--cluster", "3"], "cluster"),
        (["--task", "digits"], "digits"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
        (["--weights", "model.safetensors"], "--config and --weights both say"),
    ],
    ids=["no such version", "no such cluster", "no such task", "no configuration", "both"],
)
def test_what_the_database_lacks_is_named(run, database, tmp_path, words, said):
    assert said in run([*database, *words], 2)
    assert not (tmp_path / "out").exists()


def test_a_database_that_can_not_be_read_any_more_is_told_in_words(run, database, tmp_path):
    with closing(sqlite3.connect(tmp_path / "coordinator.db")) as connection:
        connection.execute("ALTER TABLE bundle_files RENAME TO lost")
    said = run(database, 2)
    assert "the coordinator's database can't be read" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--label", "10"], "has no class 10; ask for one of 0 to 9"),
        (["--label", "-1"], "greater than or equal to 0"),
        (["--count", "1000000000"], "less than or equal to 10000"),
        (["--task", str(SHIPPED), "--weights", str(SHIPPED / "weights.safetensors")], "'digits' draws nothing"),
        (["--weights", str(SHIPPED / "weights.safetensors")], "are missing or unknown; name what"),
        (["--weights", str(SHIPPED / "task.json")], "not a safetensors file"),
        (["--weights", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--weights", "/dev/zero"], "/dev/zero: 0 bytes, or no regular file"),
        (["--weights", "/"], "or no regular file"),
        (["--version", "3"], "a file holds one model"),
        (["--out", "/dev/null/out"], "/dev/null/out: Not a directory; name a new folder"),
    ],
    ids=[
        "class",
        "negative",
        "many",
        "draws nothing",
        "other task",
        "no weights",
        "no file",
        "endless",
        "a folder",
        "version",
        "no folder",
    ],
)
def test_what_can_not_be_drawn_is_told_in_words(run, asked, tmp_path, words, said):
    assert said in run([*asked, *words], 2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("value", "said"), [(np.nan, "NaN or infinity"), (3e38, "is not finite")])
def test_weights_that_draw_no_numbers_are_refused_and_leave_no_folder(run, asked, tmp_path, value, said):
    file = tmp_path / "model.safetensors"
    save_file({name: np.where(each < 0, -value, value).astype("f4") for name, each in load_file(file).items()}, file)
    assert said in run(asked, 2)
    assert not (tmp_path / "out").exists()


def test_full_disk_is_told_and_leaves_no_folder(monkeypatch, run, asked, tmp_path):
    written: list[Path] = []

    def full(path: Path, content: bytes) -> int:
        if len(written) > 5:
            raise OSError(28, os.strerror(28))
        written.append(path)
        return len(content)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "out: No space left on device; make room on that disk" in run(asked, 2)
    assert written
    assert not (tmp_path / "out").exists()


def test_folder_that_exists_is_left_alone(run, asked, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    assert "File exists; name a new folder" in run(asked, 2)
    assert (tmp_path / "out" / "mine").read_text() == "mine"


def test_grid_stays_small_where_pictures_are_many(monkeypatch, run, asked, tmp_path):
    monkeypatch.setattr(drawn_pictures, "GRID_VALUES", 5 * 28 * 28)
    run([*asked, "--count", "4"])
    width, height = struct.unpack(">II", (tmp_path / "out" / "grid.png").read_bytes()[16:24])
    assert (width, height) == (28, 5 * 29 - 1)


@dataclass(frozen=True, slots=True)
class Wrong:
    """A line of task.toml, what stands in its place, and what is said."""

    line: str
    instead: str
    said: str


WRONG = {
    "no such part": Wrong('module = "generator"', 'module = "painter"', "'painter' is no submodule"),
    "another shape": Wrong('module = "generator"', 'module = "generator.block1"', "let its forward() return one"),
    "too few numbers": Wrong("latent = 4", "latent = 5", "it has to take latent"),
    "no such input": Wrong('label = "digit"', 'label = "letter"', "names the input 'letter', and there is none"),
    "no picture": Wrong('picture = "picture"', 'picture = "digit"', "which is no picture"),
    "no class": Wrong("whole = true", "whole = false", "has to be one whole number from 0 to at most 999"),
    "scaled": Wrong("[split]", '[scaling]\ninputs = "ranges"\n[split]', "goes with inputs as they are"),
}


@pytest.mark.parametrize("case", WRONG)
def test_drawing_that_can_not_be_is_refused_in_words(tmp_path, case):
    folder = write_tiny_pair(tmp_path / "pair")
    wrong, task = WRONG[case], folder / "task.toml"
    text = task.read_text()
    assert wrong.line in text
    task.write_text(text.replace(wrong.line, wrong.instead, 1))
    with pytest.raises(ConfigurationError, match=re.escape(wrong.said)):
        read_recipe(folder)
