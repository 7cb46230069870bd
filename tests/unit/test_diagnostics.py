"""Figures of a fleet's updates, against what they are by hand, and when a word is said of them."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from broker_coordinator.aggregation.diagnostics.dissimilarity import Dissimilarity, dissimilarity
from broker_coordinator.aggregation.diagnostics.findings import Figures, findings
from broker_coordinator.aggregation.diagnostics.participation import Participation, gini, participation, quantiles
from broker_coordinator.aggregation.diagnostics.plan_fit import misfits, of_trusted
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.codec import SparseUpdate
from fleet_protocol.quarantine_plan import QuarantinePlan
from fleet_protocol.robust_plan import RobustPlan
from tests.support.bundles import write_bundle


def sparse(*values: float) -> SparseUpdate:
    dense = np.array(values, np.float32)
    return SparseUpdate(np.flatnonzero(dense), dense[np.flatnonzero(dense)])


def often(*values: float) -> list[SparseUpdate]:
    return [sparse(*values)] * 4


def test_devices_that_send_the_same_have_all_in_common():
    assert dissimilarity([often(3, 0, 4)] * 5, 3) == Dissimilarity(5, *[pytest.approx(1.0)] * 3)


def test_devices_that_share_no_entry_have_nothing_in_common():
    found = dissimilarity([often(1, 0, 0), often(0, 1, 0), often(0, 0, 1)], 3)
    assert found == Dissimilarity(3, pytest.approx(3.0), pytest.approx(1.0), pytest.approx(0.0))


def test_mean_of_a_device_counts_and_not_how_often_it_sends():
    found = dissimilarity([[sparse(2, 0), sparse(0, 2)] * 4, often(1, 1), often(1, 1)], 2)
    assert found == Dissimilarity(3, *[pytest.approx(1.0)] * 3)


def test_opposite_devices_have_an_endless_dissimilarity_and_nothing_in_common():
    found = dissimilarity([often(1), often(-1)] * 2, 1)
    assert (found.b_squared, found.lasting, found.in_common) == (math.inf, 1.0, 0.0)


@pytest.mark.parametrize("devices", [5, 50])
@pytest.mark.parametrize(("own", "chance"), [(0.0, 2.0), (0.5, 0.0), (0.5, 2.0)])
def test_what_is_common_depends_neither_on_how_many_devices_there_are_nor_on_chance(devices, own, chance):
    draw = np.random.default_rng(devices)
    sent = []
    for _ in range(devices):
        direction = 0.5 + draw.normal(0, own, 4000)
        sent.append([sparse(*(direction + draw.normal(0, chance, 4000))) for _ in range(8)])
    found = dissimilarity(sent, 4000)
    assert found.in_common == pytest.approx(0.25 / (0.25 + own**2), abs=0.12)
    assert found.lasting == pytest.approx((0.25 + own**2) / (0.25 + own**2 + chance**2 / 8), abs=0.05)


@pytest.mark.parametrize("sent", [[], [often(1)] * 2, [often(1), [], often(1)], [often(0)] * 4, [[sparse(1)] * 3] * 5])
def test_two_devices_or_few_updates_or_nothing_sent_say_nothing(sent):
    assert dissimilarity(sent, 1) is None


def test_gini_coefficient_is_that_of_the_textbook():
    assert gini([5, 5, 5, 5]) == 0
    assert gini([0, 0, 0, 8]) == pytest.approx(0.75)
    assert gini([3, 1, 2]) == pytest.approx(2 / 9)


def test_participation_counts_those_that_send_nothing():
    assert participation([]) is participation([0, 0]) is None
    assert participation([0, 6, 2]) == Participation(3, 1, pytest.approx(0.5), 0.75)


def test_quantiles_are_values_that_are_there():
    assert quantiles([]) == {}
    assert quantiles(range(101)) == {"median": 50, "p90": 90, "p99": 99, "largest": 100}
    assert quantiles([7]) == {"median": 7, "p90": 7, "p99": 7, "largest": 7}


@pytest.fixture
def task(tmp_path):
    return write_bundle(tmp_path / "bundle", aggregation=AggregationPlan()).description


QUIET = Figures(
    1000,
    {"median": 1, "p90": 9, "p99": 19, "largest": 20},
    0.4,
    0.4,
    Participation(40, 2, 0.3, 0.1),
)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, ()),
        ({"unlike_labels": 0.75}, ("different labels: those of 75%", "ca2fl")),
        ({"staleness": {"p90": 11}}, ("11 versions old", "max_staleness 20")),
        ({"shortened": 0.6}, ("60% of updates are longer", "learning_rate")),
        ({"participation": Participation(40, 5, 0.7, 0.3)}, ("Gini coefficient 0.70", "30%")),
        ({"participation": Participation(40, 25, 0.9, 0.3)}, ("25 of 40 devices have sent nothing",)),
        ({"participation": Participation(40, 25, 0.9, 0.3), "updates": 199}, ()),
    ],
)
def test_a_word_is_said_where_a_figure_is_bad_and_only_there(task, changed, words):
    said = findings(replace(QUIET, **changed), task)
    assert len(said) == bool(words)
    assert all(word in said[0] for word in words)


def test_a_task_that_has_ca2fl_is_not_told_to_take_it(tmp_path):
    task = write_bundle(tmp_path / "bundle", aggregation=AggregationPlan(strategy="ca2fl")).description
    (said,) = findings(replace(QUIET, unlike_labels=0.75), task)
    assert "ca2fl" not in said


FEDAVG = AggregationPlan(buffer_size=20, strategy="fedavg", round_seconds=60.0, max_staleness=0, over_selection=1.5)


@pytest.mark.parametrize(
    ("plan", "devices", "words"),
    [
        (AggregationPlan(buffer_size=4), 10_000, ("buffer_size 4 is small for 10000 devices", "it would be 256 now")),
        (AggregationPlan(buffer_size=4), 160, ()),
        (AggregationPlan(buffer_size=50), 40, ("buffer_size 50 is more than all devices, which are 40",)),
        (AggregationPlan(buffer_size=4), 1, ()),
        (AggregationPlan(buffer_size=4), 0, ()),
        (AggregationPlan(), 1_000_000, ()),
        (FEDAVG, 20, ("a round asks 30 devices", "at most", "13")),
        (FEDAVG, 30, ()),
        (AggregationPlan(strategy="aced", robust=RobustPlan("median")), 4, ("of 4 it can't tell", "let 5 or more")),
        (AggregationPlan(strategy="aced", robust=RobustPlan("median")), 5, ()),
        (AggregationPlan(strategy="aced", robust=RobustPlan("zeno", trusted_devices=("mine",))), 2, ()),
        (AggregationPlan(strategy="aced", robust=RobustPlan("median", bucket_size=2)), 8, ("in buckets of 2", "let 9")),
        (AggregationPlan(strategy="aced", robust=RobustPlan("median", bucket_size=2)), 9, ()),
        (AggregationPlan(quarantine=QuarantinePlan()), 5, ("of 5 devices it holds nothing", "let 6 or more")),
        (AggregationPlan(quarantine=QuarantinePlan()), 6, ()),
    ],
)
def test_a_plan_that_does_not_suit_the_fleet_is_said_with_what_to_set(tmp_path, plan, devices, words):
    said = misfits(write_bundle(tmp_path / "bundle", aggregation=plan).description, devices)
    assert len(said) == bool(words)
    assert all(word in said[0] for word in words)


@pytest.mark.parametrize(
    ("approved", "heard", "words"),
    [
        (["mine", "other"], None, []),
        (["mine", "other", "pi"], ["pi", "other"], []),
        (["mine"], None, ["names 'other', which is not approved"]),
        (["mine", "other", "pi"], ["pi"], [r"none of .*trusted_devices \(mine, other\) has sent .* last 20 versions"]),
        (["mine", "other", "pi"], [], ["the model stays as it is"]),
    ],
)
def test_trusted_devices_that_are_missing_or_silent_are_named(tmp_path, approved, heard, words):
    plan = AggregationPlan(robust=RobustPlan("fltrust", trusted_devices=("mine", "other")))
    said = of_trusted(write_bundle(tmp_path / "bundle", aggregation=plan).description, lambda: approved, heard)
    assert len(said) == len(words)
    assert all(re.search(word, each) for word, each in zip(words, said, strict=True))


def test_tasks_that_trust_no_device_name_none(tmp_path):
    assert of_trusted(write_bundle(tmp_path / "bundle").description, list, ["pi"]) == []
