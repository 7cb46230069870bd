"""What a simulated device stores, trains on and counts are the same samples, and the shares of a fleet add up."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle_runtime.samples import Samples
from edge_agent.core.guards import GuardSettings
from fleet_protocol.errors import ConfigurationError
from tests.support.simulated_fleet import HOUR, STEADY, bundle, fleet, workload
from workbench.data.partition import dirichlet_parts, even_parts
from workbench.simulation.conditions import FleetMember
from workbench.simulation.device_memory import stored_rows, unseen_rows
from workbench.simulation.simulation import Options, Simulation
from workbench.simulation.workload import Workload


@given(st.integers(0, 500), st.integers(1, 60), st.integers(1, 60))
def test_a_store_holds_the_newest_different_samples_once_each(newest, different, maximum):
    rows = stored_rows(newest, different, maximum)
    assert rows.size == min(newest, different, maximum) == np.unique(rows).size
    assert not newest or rows[-1] == (newest - 1) % different


@given(st.integers(1, 60), st.integers(1, 60), st.lists(st.integers(1, 80), min_size=1, max_size=6))
def test_a_row_is_unseen_unless_a_round_has_had_it_and_it_is_still_in_its_place(different, maximum, arrivals):
    seen: set[int] = set()
    newest = 0
    for count in arrivals:
        trained_through, newest = newest, newest + count
        rows = stored_rows(newest, different, maximum)
        held_all_along = seen if rows.size == different or newest <= maximum else set()
        unseen = rows[unseen_rows(rows, different, newest, trained_through)]
        assert not held_all_along & set(unseen.tolist())
        if not trained_through:
            assert unseen.size == rows.size
        seen = set(rows.tolist())


def watched(seen: list[int], different: int) -> Workload:
    """The synthetic workload, of which each device sees so many samples; notes how many a round trains on."""
    learned = workload()

    def samples(device: int, rows: np.ndarray) -> Samples:
        seen.append(rows.size)
        return learned.samples(device, rows)

    return replace(learned, count=lambda _: different, samples=samples)


def test_a_round_trains_on_what_has_come_and_not_on_what_will():
    seen: list[int] = []
    run = Simulation(fleet(1), bundle(), watched(seen, 200), Options(seed=1, seconds=2 * HOUR))
    run.run()
    assert seen == sorted(seen)
    assert 32 <= seen[0] < 40
    assert seen[-1] == 200


def test_a_device_with_fewer_samples_than_its_guards_want_never_trains_however_often_they_come():
    seen: list[int] = []
    run = Simulation(fleet(3), bundle(), watched(seen, 15), Options(seed=1, seconds=2 * HOUR))
    summary = run.run().summary
    assert seen == []
    assert (summary.updates, summary.devices_short_of_samples) == (0, 3)
    assert summary.guard_refusals.keys() == {"15 stored samples, the limit is at least 16"}


def test_a_store_smaller_than_the_guard_wants_never_trains():
    member = FleetMember(STEADY, GuardSettings(), maximum_samples=10)
    summary = Simulation([member], bundle(), workload(), Options(seed=1, seconds=2 * HOUR)).run().summary
    assert (summary.updates, summary.devices_short_of_samples) == (0, 1)


def test_devices_that_train_at_any_time_have_all_their_samples_and_none_is_drawn_that_has_too_few():
    seen: list[int] = []
    learned = replace(watched(seen, 40), count=lambda device: 40 if device else 15)
    run = Simulation(fleet(4), bundle(), learned, Options(seed=1, seconds=HOUR, concurrent=4))
    summary = run.run().summary
    assert set(seen) == {40}
    assert run.agents[0].updates_made == 0
    assert summary.guard_refusals == {}


@pytest.mark.parametrize("devices", [3, 60, 100])
def test_every_row_goes_to_one_device_and_each_device_gets_enough(devices):
    labels = np.random.default_rng(0).integers(0, 10, 800)
    for parts in (
        dirichlet_parts(labels, devices, np.random.default_rng(1), fewest=8),
        even_parts(800, devices, fewest=8),
    ):
        assert min(map(len, parts)) >= 8
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(800))


def test_too_many_devices_for_the_samples_are_refused():
    for split in (lambda: dirichlet_parts(np.zeros(799, np.int64), 100, np.random.default_rng(1), fewest=8),
                  lambda: even_parts(799, 100, fewest=8)):  # fmt: skip
        with pytest.raises(ConfigurationError, match="--devices 100: too many; 799 samples can't be split so that"):
            split()
