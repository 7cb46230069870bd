"""What `edge-agent predict` reads of a file, and what it says of what it can't read."""

from pathlib import Path

import pytest

from edge_agent.verbs import own_predictions
from edge_agent.verbs.own_predictions import lines_of_file, readings_of_file, show_predictions
from fleet_protocol.errors import ConfigurationError


@pytest.mark.parametrize("name", ["a.csv", "A.CSV"])
def test_line_that_can_not_be_read_says_why_and_the_others_are_asked_about(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x,y\n1,2\n3\n4,5\n")
    found = list(readings_of_file(tmp_path / name, mapped=False))
    assert found[1] == f"{name}, line 3: 1 cells under 2 names of the header"
    assert [reading for reading in found if isinstance(reading, bytes)] == [
        b'{"inputs":[1.0,2.0],"label":null}',
        b'{"inputs":[4.0,5.0],"label":null}',
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.csv", "none.csv: No such file or directory; correct the name"),
        ("folder.csv", "folder.csv: Is a directory; name a file"),
        ("a.txt", "the name must end in .csv or .jsonl"),
        ("bad.csv", "invalid start byte; write it again"),
    ],
)
def test_file_that_can_not_be_read_is_named_with_the_remedy(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "bad.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError) as refused:
        list(readings_of_file(tmp_path / name, mapped=False))
    assert str(refused.value).endswith(words) or words in str(refused.value)


def test_file_that_was_begun_anew_is_followed_from_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("[1]\n[2]\n[3")
    monkeypatch.setattr(own_predictions.time, "sleep", lambda _: file.write_text("[4]\n"))
    lines = lines_of_file(file, follow=True)
    assert [next(lines) for _ in range(3)] == [b"[1]\n", b"[2]\n", b"[4]\n"]


def test_socket_that_nobody_serves_says_how_to_start_the_agent(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="start the agent"):
        show_predictions(tmp_path / "samples.sock", "digits", [b"{}"], lambda _: None, as_json=False)
