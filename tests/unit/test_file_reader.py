"""Files of a folder source: each format gives its samples, and what is wrong with a file is said."""

import wave
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from edge_agent.sources.file_job import FileJob
from edge_agent.sources.file_reader import READERS, read_file
from edge_agent.sources.folder import settled
from edge_agent.sources.watched_folder import WatchedFolder, label_of


def job(path: Path, shape: list[int], **fields: object) -> FileJob:
    return FileJob(str(path), shape, 0.0, 1.0, **fields)


def documents(file: FileJob) -> list[dict[str, object]]:
    found = list(read_file(file))
    assert [reading.refused for reading in found if reading.refused] == []
    return [msgspec.json.decode(reading.document) for reading in found]


def refusals(file: FileJob) -> list[str]:
    return [reading.refused for reading in read_file(file) if reading.refused]


def sound(path: Path, frames: bytes, *, width: int = 2, channels: int = 1, rate: int = 8000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(frames)
    return path


def test_table_gives_a_sample_a_line(tmp_path: Path) -> None:
    (file := tmp_path / "a.csv").write_text("x,label,y\n1,0,2\n3,1,\n")
    assert documents(job(file, [2])) == [{"inputs": [1, 2], "label": 0}, {"inputs": [3, None], "label": 1}]


def test_table_of_which_values_are_picked_keeps_its_names(tmp_path: Path) -> None:
    (file := tmp_path / "a.csv").write_text("temperature, door\n21.5, ON\n")
    assert documents(job(file, [2], mapped=True)) == [{"temperature": 21.5, "door": "ON"}]


def test_line_with_other_cells_is_refused_and_the_next_is_taken(tmp_path: Path) -> None:
    (file := tmp_path / "a.csv").write_text("x,y\n1\n2,3\n")
    first, second = read_file(job(file, [2]))
    assert (first.refused, first.ends) == ("a.csv, line 2: 1 cells under 2 names of the header", False)
    assert msgspec.json.decode(second.document) == {"inputs": [2, 3], "label": None}


def test_json_lines_are_passed_on_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    (file := tmp_path / "a.jsonl").write_bytes(b'{"inputs": [1]}\n\n{"inp\n{"inputs": [2]}\n{"a": "\xff"}')
    found = list(read_file(job(file, [1])))
    assert [msgspec.json.decode(each.document) for each in found if not each.refused] == [
        {"inputs": [1]},
        {"inputs": [2]},
    ]
    for number, refused in zip((3, 5), refusals(job(file, [1])), strict=True):
        assert refused.startswith(f"a.jsonl, line {number}: not JSON")


@pytest.mark.parametrize("rows", [np.arange(4.0).reshape(2, 2), np.arange(4).reshape(2, 2)])
def test_array_gives_a_sample_a_row_with_the_label_of_its_folder(tmp_path: Path, rows: np.ndarray) -> None:
    np.save(file := tmp_path / "a.npy", rows)
    assert documents(job(file, [2], label=3.0)) == [
        {"inputs": [0, 1], "label": 3},
        {"inputs": [2, 3], "label": 3},
    ]
    assert documents(job(file, [2, 2])) == [{"inputs": [0, 1, 2, 3], "label": None}]


def test_named_arrays_have_their_labels(tmp_path: Path) -> None:
    np.savez(file := tmp_path / "a.npz", inputs=np.ones((2, 1)), labels=np.array([0, 1]))
    assert documents(job(file, [1])) == [{"inputs": [1], "label": 0}, {"inputs": [1], "label": 1}]


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_sound_of_every_width_is_divided_into_whole_samples(tmp_path: Path, width: int) -> None:
    half = (64 if width > 1 else 192) << 8 * (width - 1)
    silence = (0 if width > 1 else 128) << 8 * (width - 1)
    frames = b"".join(value.to_bytes(width, "little") for value in (half, silence, half, half, silence))
    file = sound(tmp_path / "a.wav", frames, width=width)
    assert [each["inputs"] for each in documents(job(file, [2]))] == [[0.5, 0], [0.5, 0.5]]


def test_channels_of_sound_are_averaged(tmp_path: Path) -> None:
    file = sound(tmp_path / "a.wav", np.array([[16384, 0], [0, -16384]], "<i2").tobytes(), channels=2)
    assert [each["inputs"] for each in documents(job(file, [2]))] == [[0.25, -0.25]]


@pytest.mark.parametrize(("shape", "values"), [([1, 1, 2], [0, 1]), ([3, 1, 2], [0, 1, 0, 1, 0, 1])])
def test_picture_goes_from_minimum_to_maximum_in_the_shape_of_the_task(
    tmp_path: Path, shape: list[int], values: list[float]
) -> None:
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(file := tmp_path / "a.png")
    assert documents(job(file, shape, label=1.0)) == [{"inputs": values, "label": 1}]


def test_picture_in_colour_is_resized(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), (255, 0, 0)).save(file := tmp_path / "a.jpg", quality=100)
    (found,) = documents(job(file, [3, 1, 2]))
    assert found["inputs"] == pytest.approx([1, 1, 0, 0, 0, 0], abs=0.01)


def npy_of(array: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.save(path, array, allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("a.txt", lambda path: path.write_text("1"), "the name must end in .csv"),
        ("a.npy", lambda path: path.write_bytes(b"no array"), "write it again"),
        ("a.npy", npy_of(np.array([{}])), "write it again"),
        ("a.npy", npy_of(np.array(["x"])), "no numbers; write it as float32"),
        ("a.npy", npy_of(np.ones((2, 3))), "its shape is [2, 3], expected [N, 2]"),
        ("a.npz", lambda path: np.savez(path, x=np.ones(2)), "the array 'inputs' is missing; there is x"),
        ("a.npz", lambda path: np.savez(path, inputs=np.ones((2, 2)), labels=[1]), "2 inputs and 1 labels"),
        ("a.wav", lambda path: path.write_bytes(b"RIFF"), "write it again"),
        ("a.wav", lambda path: sound(path, b"\0\0"), "1 values are shorter than a sample of 2; record longer"),
        ("a.wav", lambda path: sound(path, bytes(8), rate=44_100), "recorded at 44100 Hz; the source takes 8000 Hz"),
        ("a.png", lambda path: path.write_bytes(b"no picture"), "the task takes [2], no picture of"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    tmp_path: Path, name: str, write: Callable[[Path], None], words: str
) -> None:
    write(tmp_path / name)
    (found,) = list(read_file(job(tmp_path / name, [2], sample_rate_hz=8000)))
    assert found.ends
    assert words in found.refused


def test_every_reader_takes_a_name_in_capitals(tmp_path: Path) -> None:
    (file := tmp_path / "A.CSV").write_text("x\n1\n")
    assert documents(job(file, [1])) == [{"inputs": [1], "label": None}]
    assert all(suffix == suffix.lower() for suffix in READERS)


def test_file_is_read_once_nobody_writes_to_it(tmp_path: Path) -> None:
    a, b = tmp_path / "a.csv", tmp_path / "b.csv"
    assert settled({}, {a: (1, 1)}) == []
    assert settled({a: (1, 1), b: (1, 1)}, {a: (2, 2), b: (1, 1)}) == [b]


def test_unfinished_and_other_files_are_left_alone(tmp_path: Path) -> None:
    for name in ("a.csv", ".hidden.csv", "b.csv.part", "taken/c.csv", "3/d.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert set(WatchedFolder(tmp_path).files()) == {Path("a.csv"), Path("3/d.wav")}


@pytest.mark.parametrize(("name", "label"), [("3", 3), ("0.5", 0.5), ("-2", -2), ("taken", None), ("1.2.3", None)])
def test_folder_named_by_a_number_is_a_label(name: str, label: float | None) -> None:
    assert label_of(name) == label
