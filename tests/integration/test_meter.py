"""What a day has used is counted once, survives a restart, and counts however a round ends."""

import subprocess
import sys
import time
from functools import partial

import pytest

from edge_agent.core.daily_use import DAY_SECONDS, DailyUse
from edge_agent.core.guards import GuardSettings
from edge_agent.shell.host.meter import Meter
from edge_agent.shell.storage.device_database import DeviceDatabase

BUSY = (sys.executable, "-c", "while __import__('time').process_time() < 0.1: pass")


def test_processor_time_of_a_round_that_fails_and_bytes_survive_a_restart(tmp_path):
    database, carried = DeviceDatabase(tmp_path / "agent.db"), [100]
    meter = Meter(database, lambda: carried[0], lambda: 0, keeps=True)
    assert (meter.used().bytes, meter.used().bytes) == (100, 100)
    carried[0] = 150
    with pytest.raises(ValueError, match="diverged"), meter.round():
        subprocess.run(BUSY, check=True)
        raise ValueError("diverged")
    used = meter.used()
    assert used.cpu_milliseconds >= 100
    assert used.bytes == 150
    database.close()
    again = DeviceDatabase(tmp_path / "agent.db")
    assert Meter(again, lambda: 0, lambda: 0, keeps=True).used() == used
    again.close()


def test_another_day_begins_from_nothing(tmp_path, monkeypatch):
    database = DeviceDatabase(tmp_path / "agent.db")
    meter = Meter(database, lambda: 7, lambda: 0, keeps=True)
    with meter.round():
        pass
    now = time.localtime()
    monkeypatch.setattr(time, "localtime", lambda: time.struct_time((2038, *now[1:])))
    assert (meter.used().day, meter.used().bytes) == (2_038_000 + now.tm_yday, 0)
    database.close()


def test_device_without_a_budget_writes_nothing_to_its_card(tmp_path):
    database = DeviceDatabase(tmp_path / "agent.db")
    with Meter(database, lambda: 7, lambda: 0, keeps=GuardSettings().has_budget).round():
        pass
    assert database.daily_use() == DailyUse()
    database.close()


def test_child_that_stays_is_counted_when_it_reports_and_not_again_when_it_ends(tmp_path):
    database, running = DeviceDatabase(tmp_path / "agent.db"), [0]
    meter = Meter(database, lambda: 0, lambda: running[0], keeps=True)
    with meter.round():
        running[0] = 5000
    assert 5000 <= meter.used().cpu_milliseconds < 5100
    running[0] = 0  # it has ended between two rounds
    with meter.round():
        running[0] = 300
    assert 5300 <= meter.used().cpu_milliseconds < 5400
    database.close()


def test_what_a_running_round_has_used_counts_at_once_and_a_child_that_is_just_ending_takes_nothing_back(tmp_path):
    database, running = DeviceDatabase(tmp_path / "agent.db"), [1000]
    meter = Meter(database, lambda: 0, lambda: running[0], keeps=True)
    with meter.round():
        assert meter.used().cpu_milliseconds < 100, "what the worker has used before is no round's"
        running[0] = 5000
        assert 4000 <= meter.used().cpu_milliseconds < 4100
        running[0] = 0  # it has ended, and the kernel has not counted it yet
        assert 4000 <= meter.used().cpu_milliseconds < 4100
        running[0] = 6000
    assert 5000 <= meter.used().cpu_milliseconds < 5100
    assert database.daily_use() == meter.used()
    database.close()


def test_machine_that_starts_in_1970_each_time_has_a_new_budget_with_each_start_and_after_a_day(tmp_path, monkeypatch):
    monotonic = [5.0]
    monkeypatch.setattr(time, "localtime", lambda: time.gmtime(30))
    monkeypatch.setattr(time, "monotonic", lambda: monotonic[0])
    days = []
    for _ in range(2):
        database, carried = DeviceDatabase(tmp_path / "agent.db"), [100]
        meter = Meter(database, partial(carried.__getitem__, 0), lambda: 0, keeps=True)
        with meter.round():
            pass
        days.append(meter.used())
        monotonic[0] += DAY_SECONDS
        carried[0] = 107
        days.append(meter.used())
        database.close()
    assert [used.bytes for used in days] == [100, 7, 100, 7]
    assert len({used.day for used in days}) == 4
