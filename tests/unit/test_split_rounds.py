"""The in-process fleet that formats and rules of split learning are measured with."""

import msgspec
import numpy as np
import pytest

from benchmarks import split_accuracy
from benchmarks.split_rounds import SplitFleet, Traffic
from tests.support.split_session import pictures, plan_of, shipped, shipped_weights

DEVICES, STEPS = 3, 4


@pytest.mark.parametrize("at_once", [1, DEVICES])
def test_a_round_is_the_same_whenever_it_is_repeated(at_once):
    task = shipped().description
    plan = plan_of(task, most_in_flight=2)
    parts = [pictures(40, seed) for seed in range(DEVICES)]
    fleet = SplitFleet(task, plan, shipped().files, parts, [plan.cuts[0]] * DEVICES, at_once)
    traffic = Traffic()
    found = [fleet.round(shipped_weights(), STEPS, seed=1, traffic=traffic) for _ in range(2)]
    np.testing.assert_array_equal(*found)
    assert (found[0] != shipped_weights()).any()
    assert traffic.steps == 2 * STEPS * DEVICES
    assert traffic.to_helper > 0 < traffic.to_device


def test_every_case_is_measured_with_its_changes(monkeypatch):
    monkeypatch.setattr(split_accuracy, "STEPS", 2)
    cases = {case.name: case for case in split_accuracy.cases()}
    exact, narrow = (
        split_accuracy.run_case(shipped(), pictures(50), cases[name], seed=0, rounds=1) for name in ("float32", "int8")
    )
    assert 0 < 4 * narrow.bytes_to_helper < 1.1 * exact.bytes_to_helper
    for case in cases.values():
        msgspec.structs.replace(plan_of(shipped().description), **dict(case.changes))
