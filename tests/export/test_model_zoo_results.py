"""A run of the model zoo that was stopped goes on from its file, and never changes a file that isn't its own."""

from pathlib import Path

import pytest

from benchmarks.model_zoo.measure import Measured
from benchmarks.model_zoo.results import Line, add_result, read_results
from benchmarks.model_zoo.table import table
from fleet_protocol.errors import ConfigurationError


def test_what_was_measured_is_read_again_without_a_line_that_was_cut_off(tmp_path: Path):
    path = tmp_path / "zoo.jsonl"
    assert read_results(path) == {}
    add_result(path, Line("gru", Measured(refusal="it draws")))
    with path.open("ab") as file:
        file.write(b'{"model": "ls')
    assert read_results(path) == {"gru": Measured(refusal="it draws")}
    add_result(path, Line("lenet", Measured(refusal="it counts")))
    assert read_results(path).keys() == {"gru", "lenet"}
    assert table(read_results(path)).splitlines()[2].startswith("| lenet | it counts |")


@pytest.mark.parametrize("content", [b"notes", b"notes\nmore notes", b'{"model": 3}\n'])
def test_file_of_something_else_is_left_as_it_is(tmp_path: Path, content: bytes):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"notes\.txt: no results of this zoo .*give another file"):
        read_results(path)
    assert path.read_bytes() == content
