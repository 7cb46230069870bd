"""The zoo's parts: how samples are shared out, what scores come to, and what is made of the results."""

import json
import tomllib
from pathlib import Path
from pkgutil import resolve_name

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.zoo import fingerprints
from benchmarks.zoo.bundles import EXPORTED_BY, exported_from, written
from benchmarks.zoo.case import Case, Length, Outcome
from benchmarks.zoo.partitions import FEWEST, PARTITIONS, applies, shares
from benchmarks.zoo.plan import cases_of
from benchmarks.zoo.pooled import Pooled
from benchmarks.zoo.results import Results, read_results
from benchmarks.zoo.rules import RULES, merged
from benchmarks.zoo.samples import speech, tables
from benchmarks.zoo.scoring import bounded, collapsed, gap
from benchmarks.zoo.summary import summarise, with_and_without
from benchmarks.zoo.table import tables as tables_of
from benchmarks.zoo.tasks import DATA, EVERY_TASK, KEPT_ASIDE, RECIPES, TASKS, Split, read_split
from bundle_runtime.samples import Samples
from fleet_protocol.errors import ConfigurationError


def numbered(labels: np.ndarray) -> Samples:
    """Samples that can be told apart: their only input is their row."""
    return Samples(np.arange(len(labels), dtype=np.float32)[:, np.newaxis], labels)


def outcome(task: str = "digits", partition: str = "iid", **changes: object) -> Outcome:
    usual = Outcome(
        case=Case(task, partition, 40, 0),
        fingerprint="f",
        origin="2026-01-01 abc",
        measure="accuracy",
        devices=40,
        days=3.0,
        updates=1000,
        versions=250,
        pooled=Pooled(0.98, 0.1, 600),
        first=0.1,
        best=0.96,
        final=0.96,
        gap=2.0,
        collapsed=False,
        refused=0,
        diverged=0,
        alarms=0,
        words=[],
        uplink_bytes=1,
        cpu_seconds=6.0,
        scores=[0.1, 0.96],
    )
    return msgspec.structs.replace(usual, **changes)


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize("devices", [1, 8, 40])
def test_every_sample_goes_to_one_device_and_each_device_has_enough_to_train(partition, devices):
    samples = numbered(np.random.default_rng(0).integers(4, size=900))
    parts = shares(samples, "class", partition, devices, seed=1)
    assert np.array_equal(np.sort(np.concatenate([part.inputs[:, 0] for part in parts])), np.arange(900))
    assert min(map(len, parts)) >= FEWEST


def test_one_class_a_device_is_one_class_a_device():
    labels = np.repeat(np.arange(3), [300, 60, 20])
    parts = shares(numbered(labels), "class", "one-class", 8, seed=0)
    assert [sorted(set(part.labels.tolist())) for part in parts] == [[0]] * 6 + [[1], [2]]


def test_the_smaller_the_concentration_the_fewer_classes_a_device_sees():
    samples = numbered(np.random.default_rng(0).integers(10, size=8000))

    def largest_share(partition: str) -> float:
        parts = shares(samples, "class", partition, 40, seed=0)
        return float(np.mean([np.bincount(part.labels).max() / len(part) for part in parts]))

    iid, mild, strong = map(largest_share, ("iid", "dirichlet-0.3", "dirichlet-0.1"))
    assert iid < mild < strong


def test_numbers_are_shared_out_by_their_size_but_have_no_classes():
    targets = np.linspace(0, 1, 400, dtype=np.float32)[:, np.newaxis]
    spreads = [np.std(part.labels) for part in shares(numbered(targets), "regression", "dirichlet-0.1", 8, seed=0)]
    assert np.mean(spreads) < np.std(targets)
    assert [name for name in PARTITIONS if not applies(name, "regression")] == ["one-class"]


def test_fleets_that_the_samples_do_not_suffice_for_become_one():
    split = Split(numbered(np.zeros(142, np.int64)), numbered(np.zeros(36, np.int64)))
    found = list(cases_of("wine", "class", split, partitions=["iid"], devices=(8, 40, 400), seed=0))
    assert found == [Case("wine", "iid", 8, 0)]


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_gap_is_in_points(pooled, final):
    assert gap(pooled, final) == pytest.approx(100 * (pooled - final))


@pytest.mark.parametrize("nothing", [float("nan"), float("inf"), -1e30])
def test_a_score_without_bound_counts_as_the_worst(nothing):
    assert bounded(nothing) == -1.0
    assert gap(0.5, nothing) == 150.0


@pytest.mark.parametrize(
    ("scores", "wanted"),
    [([0.1, 0.8, 0.777], False), ([0.1, 0.8, 0.775], True), ([-1.0, -0.5, -1.0], False), ([0.5, float("nan")], True)],
)
def test_a_fleet_that_ends_below_97_per_cent_of_its_best_has_collapsed(scores, wanted):
    assert collapsed(scores) is wanted


def test_a_fleet_lives_for_about_a_thousand_updates_and_a_day_at_least():
    assert [Length().days_of(devices) for devices in (8, 40, 400)] == [14, 3, 1]
    assert Length(days=2).days_of(400) == 2
    assert Length(updates=7).updates_of(8) == 7
    assert Length(updates=160).days_of(8) == 3


def test_summary_names_medians_and_what_went_wrong():
    found = summarise(
        [
            outcome(),
            outcome("wine", gap=4.0, refused=3),
            outcome("wine", "one-class", gap=50.0, collapsed=True, diverged=2),
        ]
    )
    assert found.cases == 3
    assert found.median_gaps == {"iid": 3.0, "one-class": 50.0}
    assert (found.worst, found.worst_gap) == ("wine/one-class/40/0", 50.0)
    assert found.collapsed == ["wine/one-class/40/0"]
    assert found.refused == {"wine/iid/40/0": 3}
    assert found.diverged == {"wine/one-class/40/0": 2}


def without(rule: str, task: str = "digits", **changes: object) -> Outcome:
    return outcome(task, case=Case(task, "iid", 40, 0, rule), **changes)


def test_what_a_rule_adds_is_what_the_same_case_loses_without_it():
    outcomes = [outcome(), without("guard", gap=5.0), outcome("wine"), without("guard", "wine", gap=1.5)]
    found = summarise([*outcomes, without("ca2fl", "fashion", gap=90.0)])
    assert found.contributions == {"guard": {"iid": 1.25}}
    assert found.median_gaps == {"iid": 2.0}
    assert found.worst_gap == 2.0
    assert [pair.gain for pair in with_and_without(outcomes)["guard"]] == [3.0, -0.5]


def test_table_of_rules_counts_cases_that_differ_by_a_point():
    rows = [outcome(), without("guard", gap=5.0, collapsed=True), outcome("wine"), without("guard", "wine", gap=1.5)]
    assert list(tables_of(rows))[-5:-2] == [
        "| rule | iid | better with, without | collapsed with, without |",
        "|---|---|---|---|",
        "| guard | 1.2 (digits 3.0) | 1, 0 of 2 | 0, 1 |",
    ]


def test_settings_are_changed_table_by_table_and_the_rest_stays():
    settings = {"task": "zoo", "input": {"shape": [1, 2], "minimum": 0.0}, "update": {"keep_fraction": 0.1}}
    changed = merged(settings, {"loss": "huber", "update": {"selection": "dense"}})
    assert changed == {**settings, "loss": "huber", "update": {"keep_fraction": 0.1, "selection": "dense"}}
    assert tomllib.loads(written(changed)) == changed


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_rule_is_left_out_while_a_case_runs_and_is_back_after_it(rule):
    before = {name: resolve_name(name) for name in rule.replaced}
    with rule.left_out():
        assert all(resolve_name(name) is instead for name, instead in rule.replaced.items())
    assert {name: resolve_name(name) for name in rule.replaced} == before


def test_table_has_a_row_a_task_and_a_column_a_partition():
    rows = [outcome(), outcome("wine", "one-class", devices=8, gap=50.0, final=0.48, collapsed=True, refused=1)]
    assert list(tables_of(rows))[:6] == [
        "| 40 devices | pooled | iid | one-class |",
        "|---|---|---|---|",
        "| digits | 98.0 | 96.0 (2.0) |  |",
        "| wine, 8 devices | 98.0 |  | 48.0 (50.0) cr |",
        "| median gap | | 2.0 | 50.0 |",
        "",
    ]


def test_results_are_found_again_but_not_those_of_other_code(tmp_path):
    path = tmp_path / "runs" / "zoo.jsonl"
    Results(path).add(outcome())
    with path.open("ab") as file:
        file.write(json.dumps({"case": "cut off"}).encode()[:9])
    again = Results(path)
    assert again.find(outcome().case, "f") == outcome()
    assert again.find(outcome().case, "other") is None
    again.add(outcome("wine"))
    assert read_results(path) == [outcome(), outcome("wine")]


def test_a_file_that_holds_something_else_is_named(tmp_path):
    path = tmp_path / "other.jsonl"
    path.write_text('{"bad": 1}\n')
    with pytest.raises(ConfigurationError, match=r"other\.jsonl, line 1: not a result of this zoo"):
        Results(path)
    assert path.read_text() == '{"bad": 1}\n'


@pytest.mark.parametrize("name", ["digits", "wine", "iris", "even_digits"])
def test_nothing_that_is_tested_on_is_trained_on_and_nothing_is_left_out(name):
    split = read_split(name, 0, DATA)
    whole = EVERY_TASK[name].read(DATA)
    parts = [sorted(row.tobytes() for row in part.inputs) for part in (split.train, split.test)]
    assert sorted(parts[0] + parts[1]) == sorted(row.tobytes() for row in whole.inputs)
    assert read_split(name, 1, DATA).test.labels.tolist() != split.test.labels.tolist()


def test_every_task_has_a_recipe_and_what_is_kept_aside_is_no_part_of_the_zoo():
    assert EVERY_TASK.keys() == {folder.parent.name for folder in RECIPES.glob("*/task.toml")}
    assert not TASKS.keys() & KEPT_ASIDE.keys()


@pytest.mark.parametrize("name", KEPT_ASIDE)
def test_samples_lie_within_what_their_recipe_says(name):
    split = read_split(name, 0, DATA)
    schema = tomllib.loads((RECIPES / name / "task.toml").read_text())["input"]
    for part in (split.train, split.test):
        assert part.inputs.shape[1:] == tuple(schema["shape"])
        assert schema["minimum"] <= np.nanmin(part.inputs) <= np.nanmax(part.inputs) <= schema["maximum"]
        assert "missing" in schema or np.isfinite(part.inputs).all()


def test_a_source_that_says_what_to_test_on_is_followed():
    split = read_split("spoken_digits", 0, DATA)
    assert (len(split.train), len(split.test)) == (2700, 300)


def test_a_tone_is_loudest_in_the_band_it_lies_in():
    seconds = np.arange(4800) / speech.RATE
    loudest = [
        int(speech.log_mel((8000 * np.sin(2 * np.pi * hertz * seconds)).astype(np.int16)).mean(axis=1).argmax())
        for hertz in (200, 1000, 3500)
    ]
    assert loudest == sorted(loudest)
    assert loudest[0] <= 1
    assert loudest[-1] >= speech.BANDS - 3


def test_missing_readings_stay_marked_and_no_target_is_missing():
    samples = tables.air_quality(DATA)
    assert 0.05 < np.isnan(samples.inputs).any(axis=1).mean() < 0.2
    assert (samples.labels != tables.MISSING).all()


def test_a_kept_bundle_is_not_taken_for_one_with_other_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "ROOT", tmp_path)
    for folder in EXPORTED_BY:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "plan.py").write_text("averaged_versions = 10")
    before = exported_from("task", "model")
    assert exported_from("task", "model") == before
    (tmp_path / "fleet_protocol" / "plan.py").write_text("averaged_versions = None")
    assert exported_from("task", "model") != before
