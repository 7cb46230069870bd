"""The benchmark of idle agents on a small fleet: a broker that is killed and comes back loses and repeats nothing."""

import asyncio

from benchmarks.fleet_of_idle_agents import Measurement


def test_all_idle_agents_come_back_and_what_waited_is_taken_once(tmp_path):
    measurement = Measurement(tmp_path, agents=60)
    try:
        found = asyncio.run(measurement.run(idle_seconds=1.0))
    finally:
        measurement.end()
    assert found["agents"] == 60
    assert (found["updates_lost"], found["updates_twice"]) == (0, 0)
    assert found["storm_seconds"] > 0
