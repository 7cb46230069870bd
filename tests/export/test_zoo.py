"""The zoo's short form runs from recipes to its last line, and goes on from its results."""

import json
import sys

import pytest

from benchmarks.zoo import __main__ as zoo
from benchmarks.zoo import table


def test_short_form_runs_from_recipes_to_a_table(tmp_path, monkeypatch, capsys):
    results = tmp_path / "zoo.jsonl"
    arguments = ["zoo", "--short", "--tasks", "digits", "diabetes", "--partitions", "iid", "one-class"]
    arguments += ["--updates", "16", "--out", str(results), "--cache", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    zoo.main()
    first = capsys.readouterr()
    summary = json.loads(first.out.splitlines()[-1])
    cases = [json.loads(line) for line in first.err.splitlines() if line.startswith("{")]
    assert summary["cases"] == len(cases) == 3
    assert summary["gaps"]["digits/iid/8/0"] < 50

    before = results.read_bytes()
    zoo.main()
    assert capsys.readouterr().out == first.out
    assert results.read_bytes() == before

    monkeypatch.setattr(sys, "argv", ["table", str(results)])
    table.main()
    assert "| digits | " in capsys.readouterr().out


def test_unknown_task_is_refused_by_name(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["zoo", "--tasks", "cats"])
    with pytest.raises(SystemExit):
        zoo.main()
    assert "'cats'" in capsys.readouterr().err
