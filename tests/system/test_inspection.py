"""`edgeflock inspect`: what it says of a good bundle, and its one line about a bad one."""

import json
import shutil
from pathlib import Path

import msgspec
import onnx
import pytest
from onnx import TensorProto, helper

from edge_agent.profiles import read_profile, shipped_profiles
from fleet_protocol.bundle_files import DESCRIPTION_FILE, TRAIN_FILE
from workbench import cli
from workbench.inspection import bundle_inspection
from workbench.recipe_folder import find_recipe

BUNDLE = find_recipe("digits") / "bundle"


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command."""
    monkeypatch.setattr("sys.argv", ["edgeflock", "inspect", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    told = capsys.readouterr()
    return int(stopped.value.code or 0), told.out, told.err


def test_json_tells_everything_of_the_digits(monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, str(BUNDLE), "--json")
    told = json.loads(out)
    assert code == 0
    assert (told["task"], told["parameters"], told["runs_on_oldest"]) == ("digits", 4810, True)
    assert told["bytes"] == sum(path.stat().st_size for path in BUNDLE.iterdir())
    assert {file["name"] for file in told["files"]} == {path.name for path in BUNDLE.iterdir()}
    train = next(graph for graph in told["graphs"] if graph["name"] == TRAIN_FILE)
    assert train["operators"]["Scan"] == 1
    assert train["operators"]["Gemm"] > 1  # the loop's body is counted too
    needs = {need["profile"]: need for need in told["needs"]}
    assert list(needs) == shipped_profiles()
    assert needs["pi-5"]["step_ms"] < needs["pi-4"]["step_ms"] < needs["pi-zero-2w"]["step_ms"]
    assert all(need["fits"] and 20 < need["peak_memory_mib"] < 190 for need in needs.values())


def test_tables_are_for_people(monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, str(BUNDLE))
    assert code == 0
    for words in (
        "Handwritten digits",
        "4810",
        "pi-zero-2w",
        f"onnxruntime {bundle_inspection.OLDEST_ONNXRUNTIME}",
        "guessed",
    ):
        assert words in out


def test_every_profile_has_a_speed():
    cores = {read_profile(name).device.cpu for name in shipped_profiles()}
    assert cores == set(bundle_inspection.SPEED)


def test_oldest_onnxruntime_is_the_one_that_is_asked_for():
    project = msgspec.toml.decode((Path(__file__).parents[2] / "pyproject.toml").read_bytes())["project"]
    assert f"onnxruntime>={bundle_inspection.OLDEST_ONNXRUNTIME}" in project["dependencies"]


@pytest.mark.parametrize(
    ("operator", "domain", "opset", "ir", "expected"),
    [
        ("Relu", "", 18, 8, []),
        ("Relu", "", bundle_inspection.MAXIMUM_OPSET + 1, 8, ["opset 22"]),
        ("Relu", "", 18, bundle_inspection.MAXIMUM_IR_VERSION + 1, ["IR version 11"]),
        ("FusedGemm", "com.microsoft", 18, 8, ["domain com.microsoft"]),
        ("Gelu", "", 18, 8, ["operator Gelu is not one of opset 18"]),
    ],
)
def test_what_the_oldest_cannot_run_is_named(operator: str, domain: str, opset: int, ir: int, expected: list[str]):
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"], domain=domain)], "g", value[:1], value[1:])
    imports = [helper.make_opsetid("", opset)] + [helper.make_opsetid(domain, 1)] * bool(domain)
    found = bundle_inspection.obstacles(helper.make_model(graph, ir_version=ir, opset_imports=imports))
    assert len(found) == len(expected)
    assert all(words in line for words, line in zip(expected, found, strict=True))


def damage_truncated(bundle: Path) -> None:
    (bundle / TRAIN_FILE).write_bytes((bundle / TRAIN_FILE).read_bytes()[:-5])


def damage_missing(bundle: Path) -> None:
    (bundle / TRAIN_FILE).unlink()


def damage_newer(bundle: Path) -> None:
    described = json.loads((bundle / DESCRIPTION_FILE).read_text())
    (bundle / DESCRIPTION_FILE).write_text(json.dumps(described | {"format": 99, "news": 1}))


def damage_no_bundle(bundle: Path) -> None:
    (bundle / DESCRIPTION_FILE).unlink()


def damage_no_model(bundle: Path) -> None:
    described = json.loads((bundle / DESCRIPTION_FILE).read_text())
    (bundle / TRAIN_FILE).write_bytes(b"\xff not a model")
    described["files"][TRAIN_FILE] = bundle_inspection.blob_hash(b"\xff not a model")
    (bundle / DESCRIPTION_FILE).write_text(json.dumps(described))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_truncated, "train.onnx: SHA-256"),
        (damage_missing, "train.onnx: No such file or directory; name a folder that `edgeflock export` wrote"),
        (damage_newer, "bundle format 99"),
        (damage_no_bundle, "task.json: No such file or directory; name a folder that `edgeflock export` wrote"),
        (damage_no_model, "train.onnx: not an ONNX model"),
    ],
)
def test_bad_bundle_is_said_in_one_line(damage, words: str, tmp_path: Path, monkeypatch, capsys):
    shutil.copytree(BUNDLE, tmp_path / "bundle")
    damage(tmp_path / "bundle")
    code, out, errors = run(monkeypatch, capsys, str(tmp_path / "bundle"))
    assert (code, out) == (2, "")
    assert words in errors
    assert errors.count("\n") == 1


def test_onnx_is_installed_as_new_as_the_table() -> None:
    assert onnx.defs.onnx_opset_version() >= bundle_inspection.MAXIMUM_OPSET
