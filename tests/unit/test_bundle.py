"""A bundle is whole and unaltered, or it is refused with the name of the file that is not. Tried on the shipped one."""

import json
import math
from pathlib import Path

import onnx
import pytest

from fleet_protocol.bundle import parse_description, verify_bundle
from fleet_protocol.bundle_files import DESCRIPTION_FILE, REQUIRED_FILES, TRAIN_FILE, blob_hash, verify_blob
from fleet_protocol.errors import ConfigurationError, ProtocolError, Reason
from fleet_protocol.limits import MAX_BLOB_BYTES, MAX_PARAMETERS, MAX_TENSORS

FOLDER = Path(__file__).parents[2] / "models" / "digits" / "bundle"


@pytest.fixture
def files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in FOLDER.iterdir()}


def described(**changes: object) -> bytes:
    """The shipped task.json with some of its keys changed."""
    return json.dumps(json.loads((FOLDER / DESCRIPTION_FILE).read_text()) | changes).encode()


def refusal_of(text: bytes) -> str:
    with pytest.raises(ConfigurationError, match=r"^task\.json: ") as caught:
        parse_description(text)
    return str(caught.value)


def test_shipped_bundle_is_whole(files):
    description = verify_bundle(files, blob_hash(files[DESCRIPTION_FILE]))
    assert description.task == "digits"
    assert description.parameter_count == sum(map(math.prod, description.shapes)) == 64 * 64 + 64 + 64 * 10 + 10


@pytest.mark.parametrize("name", REQUIRED_FILES)
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: data + b"\x00",
        lambda data: bytes([data[0] ^ 1]) + data[1:],
    ],
    ids=["truncated", "empty", "longer", "one bit"],
)
def test_damaged_file_is_named(files, name, damage):
    files[name] = damage(files[name])
    with pytest.raises(ProtocolError, match=name) as caught:
        verify_bundle(files)
    assert caught.value.reason is Reason.WRONG_HASH


def test_plan_of_drawing_without_its_graph_is_refused():
    plan = {"module": "generator", "latent": 4, "picture": "picture", "label": "digit"}
    assert "`drawing` and draw.onnx in `files` belong together" in refusal_of(described(drawing=plan))


@pytest.mark.parametrize("name", REQUIRED_FILES)
def test_missing_file_is_named(files, name):
    del files[name]
    with pytest.raises(ProtocolError, match=name) as caught:
        verify_bundle(files)
    assert caught.value.reason is Reason.WRONG_HASH


def test_folder_without_description_is_no_bundle(files):
    del files[DESCRIPTION_FILE]
    with pytest.raises(ConfigurationError, match=r"lacks task\.json"):
        verify_bundle(files)


def test_another_bundle_than_the_manifest_names_is_refused(files):
    with pytest.raises(ProtocolError, match=DESCRIPTION_FILE) as caught:
        verify_bundle(files, blob_hash(b"what the manifest names"))
    assert caught.value.reason is Reason.WRONG_HASH


def test_blob_above_the_limit_is_refused():
    data = bytes(MAX_BLOB_BYTES + 1)
    with pytest.raises(ProtocolError) as caught:
        verify_blob("weights", data, blob_hash(data))
    assert caught.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (described(format=2, novelty=True), "bundle format 2, this edgeflock reads 1; update edgeflock"),
        (described(format=0), "export the bundle again"),
        (described(format="1"), "format"),
        (described(novelty=True), "unknown key 'novelty'"),
        (described(update={"keep_part": 0.1}), "unknown key 'keep_part' in [update]; did you mean 'keep_fraction'?"),
        (described(update={"keep_fraction": 0}), "update.keep_fraction"),
        (described(update={"keep_fraction": 1.5}), "update.keep_fraction"),
        (described(update={"keep_fraction": 0.1, "quantisation": "int2"}), "update.quantisation"),
        (described(task="Digits"), "task name 'Digits'"),
        (described(task="digits\n"), "task name"),
        (described(parameters=[]), "0 parameters"),
        (described(parameters=[{"name": "w", "shape": [MAX_PARAMETERS, 2]}]), f"allowed are 1 to {MAX_PARAMETERS}"),
        (described(parameters=[{"name": "w", "shape": [10**18]}]), "shape[0]`; it is 1000"),
        (described(parameters=[{"name": "w", "shape": [10**9] * 50}]), f"allowed are 1 to {MAX_PARAMETERS}"),
        (
            described(parameters=[{"name": f"w{number}", "shape": []} for number in range(MAX_TENSORS + 1)]),
            f"at most {MAX_TENSORS}",
        ),
        (described(parameters=[{"name": "w", "shape": [0]}]), "shape"),
        (described(parameters=[{"name": "w", "shape": [-2, -2]}]), "shape"),
        (described(parameters=[{"name": "w", "shape": [2]}] * 2), "same name"),
        (described(input={"shape": [4], "minimum": 1.0, "maximum": 0.0}), "input.minimum 1 exceeds input.maximum 0"),
        (described(files={}), "`files` lacks train.onnx"),
        (described(files=dict.fromkeys(REQUIRED_FILES, "0" * 63)), "files"),
        (described(files=dict.fromkeys(REQUIRED_FILES, "0" * 64 + "\n")), "files"),
        (described(files=dict.fromkeys(REQUIRED_FILES, "../" * 21 + "0")), "files"),
        (described()[:-1], "not valid JSON"),
        (b'{"format": 1, "deep": ' + b"[" * 100_000, "not valid JSON"),
        (b"", "not valid JSON"),
    ],
)  # fmt: skip
def test_description_that_cannot_be_followed_says_why(text, expected):
    assert expected in refusal_of(text)


@pytest.mark.parametrize(("feedback", "strategy"), [("ef21", "fedbuff"), ("residual", "ef21"), ("momentum", "ef21")])
def test_ef21_on_one_side_alone_is_refused(feedback, strategy):
    task = json.loads((FOLDER / DESCRIPTION_FILE).read_text())
    update, aggregation = task["update"] | {"feedback": feedback}, task["aggregation"] | {"strategy": strategy}
    assert "set both to it or neither" in refusal_of(described(update=update, aggregation=aggregation))


@pytest.mark.parametrize(
    ("downlink", "expected"),
    [
        ({"differences": "sometimes"}, "differences"),
        ({"precision_bits": 17}, "precision_bits"),
        ({"precison_bits": 3}, "did you mean 'precision_bits'"),
    ],
)
def test_downlink_plan_that_cannot_be_followed_is_named(downlink, expected):
    assert expected in refusal_of(described(downlink=downlink))


def test_task_without_a_downlink_plan_has_the_default():
    described_without = json.loads((FOLDER / DESCRIPTION_FILE).read_text())
    described_without.pop("downlink", None)
    assert parse_description(json.dumps(described_without).encode()).downlink.differences == "lossy"


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ({"other.onnx": {"ir_version": 8, "opset": 18}}, "onnx_versions names other.onnx, which `files` lacks"),
        ({TRAIN_FILE: {"ir_version": 8, "opset": 0}}, "opset"),
        ({TRAIN_FILE: {"ir_version": 8}}, "opset"),
        ({TRAIN_FILE: {"ir_version": 8, "opset": 18, "domain": ""}}, "unknown key 'domain'"),
    ],
)
def test_version_of_a_graph_that_makes_no_sense_is_named(versions, expected):
    assert expected in refusal_of(described(onnx_versions=versions))


def test_bundle_from_before_graphs_had_versions_still_loads():
    task = json.loads((FOLDER / DESCRIPTION_FILE).read_text())
    del task["onnx_versions"]
    assert parse_description(json.dumps(task).encode()).onnx_versions == {}


@pytest.mark.parametrize("folder", sorted(FOLDER.parents[1].glob("*/bundle")), ids=lambda folder: folder.parent.name)
def test_shipped_bundles_name_the_versions_that_onnx_reads_in_their_graphs(folder):
    described = parse_description((folder / DESCRIPTION_FILE).read_bytes()).onnx_versions
    assert described.keys() == {path.name for path in folder.glob("*.onnx")}
    for name, version in described.items():
        model = onnx.load(folder / name)
        assert (version.ir_version, version.opset) == (model.ir_version, model.opset_import[0].version)
