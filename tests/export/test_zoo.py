"""The zoo's short form runs from recipes to its last line, and goes on from its results."""

import json
import sys

import pytest

from benchmarks.zoo import __main__ as zoo
from benchmarks.zoo import table


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where bundles are kept for all of these tests."""
    return tmp_path_factory.mktemp("zoo")


def test_short_form_runs_from_recipes_to_a_table(tmp_path, cache, monkeypatch, capsys):
    results = tmp_path / "zoo.jsonl"
    arguments = ["zoo", "--short", "--tasks", "digits", "diabetes", "--partitions", "iid", "one-class"]
    arguments += ["--without", "error-feedback", "balanced-loss"]
    arguments += ["--updates", "16", "--out", str(results), "--cache", str(cache)]
    monkeypatch.setattr(sys, "argv", arguments)
    zoo.main()
    first = capsys.readouterr()
    summary = json.loads(first.out.splitlines()[-1])
    cases = [json.loads(line) for line in first.err.splitlines() if line.startswith("{")]
    assert summary["cases"] == len(cases) == 3 + 3 + 2
    assert summary["gaps"]["digits/iid/8/0"] < 50
    assert summary["contributions"].keys() == {"error-feedback", "balanced-loss"}
    assert len({case["updates"] for case in cases}) == 1
    digits = [case["final"] for case in cases if case["case"]["partition"] == "one-class"]
    assert len(set(digits)) == 3, "each rule changes what is learned"

    before = results.read_bytes()
    zoo.main()
    assert capsys.readouterr().out == first.out
    assert results.read_bytes() == before

    monkeypatch.setattr(sys, "argv", ["table", str(results)])
    table.main()
    printed = capsys.readouterr().out
    assert "| digits | " in printed
    assert "| error-feedback | " in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tasks", "cats"], "'cats'"),
        (["--devices", "0"], "0 is not a number from 1 up"),
        (["--updates", "-1"], "-1 is not a number from 1 up"),
        (["--days", "nan"], "nan is not a length of time above 0"),
        (["--tasks", "notmnist", "--data-dir", "nowhere"], "nowhere/notmnist"),
        (["--tasks", "diabetes", "--partitions", "one-class"], "no case"),
    ],
)
def test_what_cannot_be_run_is_one_line_that_names_it(arguments, words, cache, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["zoo", "--cache", str(cache), *arguments])
    with pytest.raises(SystemExit, match="2"):
        zoo.main()
    assert words in capsys.readouterr().err.splitlines()[-1]
