"""Files of samples: four formats give the same samples, and what a device would refuse is named with its place."""

import json
from array import array
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.sample_checks import find_misfits
from bundle_runtime.sample_file import read_samples
from edge_agent.sources.schema_check import check_sample
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sample_line import Sample
from fleet_protocol.sample_rules import label_rule
from fleet_protocol.sample_schema import InputSchema, LabelSchema
from fleet_protocol.task_description import TaskDescription

DIGITS = load_bundle(Path(__file__).parents[2] / "models/digits/bundle").description
CLASSES = LabelSchema(classes=3)
MULTI_LABEL = LabelSchema(classes=2, kind="multi_label")
REGRESSION = LabelSchema(kind="regression", values=2)
RECONSTRUCTION = LabelSchema(kind="reconstruction")
INPUTS = np.array([[0, 0.5, 1], [0.25, 0.75, 0.1], [1, 1, 0]])
LABELS = {
    "class": np.array([0, 2, 1]),
    "multi_label": np.array([[0, 1], [1, 1], [0, 0]]),
    "regression": np.array([[-3, 21.5], [0, 1e30], [7, 7]]),
    "reconstruction": np.empty((3, 0)),
}
KINDS = [CLASSES, MULTI_LABEL, REGRESSION, RECONSTRUCTION]


def task(label: LabelSchema, *, minimum: float = 0.0, maximum: float = 1.0) -> TaskDescription:
    """Three inputs, and a label of this kind."""
    schema = InputSchema([3], minimum, maximum)
    changed: TaskDescription = msgspec.structs.replace(DIGITS, task="pump", input=schema, label=label)
    return changed


def write(path: Path, inputs: np.ndarray, labels: np.ndarray) -> Path:
    """In the format that the name says."""
    table = labels.reshape(len(labels), -1) if labels.size else labels
    rows = [(*values, *label) for values, label in zip(inputs.tolist(), table.tolist(), strict=True)]
    if path.suffix == ".npz":
        np.savez(path, inputs=inputs, labels=labels)
    elif path.suffix == ".safetensors":
        save_file({"inputs": inputs, "labels": labels}, path)
    elif path.suffix == ".csv":
        header = [f"x{place}" for place in range(3)] + [f"label_{place}" for place in range(table.shape[1])]
        path.write_text("\n".join(",".join(map(str, row)) for row in (header, *rows)) + "\n")
    else:
        samples = [{"inputs": row[:3], "label": list(row[3:]) if len(row) != 4 else row[3]} for row in rows]
        path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return path


def refusal(path: Path, label: LabelSchema = CLASSES) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_samples(path, task(label))
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".csv", ".jsonl"])
@pytest.mark.parametrize("label", KINDS, ids=lambda schema: schema.kind)
def test_every_format_gives_the_same_samples(tmp_path, suffix, label):
    found = read_samples(write(tmp_path / f"samples{suffix}", INPUTS, LABELS[label.kind]), task(label))
    np.testing.assert_array_equal(found.inputs, INPUTS.astype(np.float32))
    np.testing.assert_array_equal(found.labels, LABELS[label.kind].astype(np.float32))
    assert found.labels.dtype == (np.int64 if label.kind == "class" else np.float32)


@pytest.mark.parametrize(
    ("suffix", "place"),
    [(".npz", "row 1 (the first is 0)"), (".safetensors", "row 1"), (".csv", "line 3"), (".jsonl", "line 2")],
)
@pytest.mark.parametrize(
    ("label", "wrong", "words"),
    [
        (CLASSES, 3, "label is 3; pump takes a whole number from 0 to 2; number the classes from 0 on"),
        (CLASSES, -1, "label is -1; pump takes a whole number from 0 to 2"),
        (CLASSES, 0.7, "label is 0.7; pump takes a whole number from 0 to 2"),
        (MULTI_LABEL, 0.7, "label 0 is 0.7; pump takes 0 or 1 for each class"),
        (REGRESSION, 1e39, "label 0 is 1e+39; pump takes -3.40282e+38 to 3.40282e+38"),
    ],
)
def test_wrong_label_is_named_with_its_place_bound_and_remedy(*, tmp_path, suffix, place, label, wrong, words):
    labels = LABELS[label.kind].astype(np.float64)
    labels[1, ...] = wrong
    told = refusal(write(tmp_path / f"samples{suffix}", INPUTS, labels), label)
    assert f"{place}" in told
    assert words in told
    assert "1 of 3 samples don't fit" in told


@pytest.mark.parametrize(
    ("suffix", "value", "words"),
    [
        (".npz", np.nan, "input 2 is nan; pump takes 0 to 1; it is not a number that can be trained on"),
        (".csv", np.nan, "line 4: input 2 is nan"),
        (".csv", np.inf, "line 4: input 2 is inf"),
        (
            ".jsonl",
            np.nan,
            "line 3: input 2 is nan; pump takes 0 to 1; it is not a number that can be trained on: leave",
        ),
        (".jsonl", -np.inf, "line 3: input 2 is -inf"),
        (".jsonl", 400.0, "line 3: input 2 is 400; pump takes 0 to 1"),
        (".safetensors", 1.00000001, "input 2 is 1.00000001; pump takes 0 to 1"),
    ],
)
def test_wrong_input_is_named_with_its_place_bound_and_remedy(tmp_path, suffix, value, words):
    inputs = INPUTS.copy()
    inputs[2, 2] = value
    assert words in refusal(write(tmp_path / f"samples{suffix}", inputs, LABELS["class"]))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"inputs": INPUTS}, "the array 'labels' is missing; there is inputs"),
        ({"labels": LABELS["class"]}, "the array 'inputs' is missing; there is labels"),
        ({"inputs": INPUTS[:, :2], "labels": LABELS["class"]}, "'inputs' has shape [3, 2], expected [3, 3]"),
        ({"inputs": INPUTS, "labels": LABELS["class"][:2]}, "'labels' has shape [2], expected [3]"),
        ({"inputs": INPUTS[:0], "labels": LABELS["class"][:0]}, "'inputs' has shape [0, 3], expected [N, 3]"),
        ({"inputs": np.float32(3), "labels": np.int64(3)}, "'inputs' has shape [], expected [N, 3]"),
        ({"inputs": INPUTS.astype(str), "labels": LABELS["class"]}, "'inputs' holds <U32, no numbers"),
        ({"inputs": INPUTS.astype(complex), "labels": LABELS["class"]}, "'inputs' holds complex128, no numbers"),
        ({"inputs": np.array([object()]), "labels": LABELS["class"]}, "allow_pickle=False"),
    ],
)
def test_arrays_that_are_no_samples_are_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "samples.npz", **arrays)
    assert words in refusal(tmp_path / "samples.npz")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", "there is no sample in it"),
        ("a.csv", b"x,y,z,label\n", "there is no sample in it"),
        ("a.csv", b"x,y,z,label\n0,0,0\n", "line 2: 3 cells under 4 names of the header"),
        ("a.csv", b"x,y,z\n0,0,0\n", "line 2: label is missing; pump takes a whole number from 0 to 2"),
        ("a.csv", b"x,y,label\n0,0,0\n", "line 2: input has 2 values; pump takes 3"),
        ("a.csv", b"x,y,z,label\n0,0,warm,0\n", "line 2: z is 'warm', which is no number"),
        ("a.csv", b"\xff\xfe", "it can't be read: 'utf-8' codec"),
        ("a.jsonl", b"\n \n", "there is no sample in it"),
        ("a.jsonl", b'{"inputs": [0, 0, 0]}\n', "line 1: label is missing"),
        ("a.jsonl", b'\n{"inputs": [0, 0, 0], "label": 0, "task": "lift"}\n', "line 2: a sample of the task 'lift'"),
        ("a.jsonl", b'{"inputs": [0, 0, 0], "lable": 0}\n', "line 1: a sample has no 'lable'"),
        ("a.jsonl", b"[0, 0, 0]\n", "line 1: a sample is a list, and should be an object"),
        (
            "a.jsonl",
            b'{"inputs": [0, 0, 0], "label": ' + b"9" * 400 + b"}\n",
            "line 1: label is inf; pump takes a whole number from 0 to 2",
        ),
        ("a.npz", b"PK\x03\x04 cut off", "it can't be read"),
        ("a.npz", b"", "it can't be read"),
        ("a.npz", b"x,y,z,label\n", "it can't be read: it is cut off, or no file of numpy.savez; write it again"),
        ("a.npz", b"\x93NUMPY\x01\0", "it can't be read: it is cut off, or no file of numpy.savez; write it again"),
        ("a.safetensors", b"\x08\0\0\0\0\0\0\0{}", "it can't be read"),
        ("a.pkl", b"", "the name must end in .csv, .jsonl, .npz, .safetensors"),
    ],
)
def test_damaged_and_foreign_files_are_refused_in_one_line(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    told = refusal(tmp_path / name)
    assert told.startswith(f"samples {tmp_path / name}")
    assert words in told
    assert "\n" not in told.strip()


def test_missing_file_and_folder_are_refused(tmp_path):
    assert "No such file" in refusal(tmp_path / "none.npz")
    (tmp_path / "folder.csv").mkdir()
    assert "Is a directory" in refusal(tmp_path / "folder.csv")


@given(st.lists(st.floats(width=32), min_size=3, max_size=3), st.floats() | st.integers(-3, 5))
def test_a_file_and_a_sample_socket_take_the_same_samples(inputs, label):
    description = task(CLASSES, minimum=-0.1, maximum=0.3)
    try:
        check_sample(Sample("pump", inputs, label), description)
        taken = True
    except ValueError:
        taken = False
    found = find_misfits(np.array([inputs]), np.array([label], np.float64), description.each_input, description)
    assert (found is None) == taken


@pytest.mark.parametrize("maximum", [0.1, 0.3, 1 / 3, 16.1])
def test_value_at_the_bound_fits_before_and_after_it_is_stored_as_float32(maximum):
    description = task(CLASSES, maximum=maximum)
    stored, _ = check_sample(Sample("pump", [maximum] * 3, 0), description)
    inputs = np.frombuffer(stored, np.float32).reshape(1, 3)
    assert find_misfits(inputs, np.array([0]), description.each_input, description) is None
    assert array("f", [maximum]).tobytes() * 3 == stored


def test_class_given_as_a_whole_float_is_that_class():
    assert label_rule(CLASSES).refusal([2.0], "pump") is None
    assert check_sample(Sample("pump", [0, 0, 0], 2.0), task(CLASSES))[1] == 2
