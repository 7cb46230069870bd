"""Guards: at its limit a guard agrees, beyond it refuses and says by how much, whether a round begins or has begun."""

import itertools
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.daily_use import DailyUse
from edge_agent.core.guards import MINUTES_OF_A_DAY, GuardSettings, Readings, objection, refusal
from edge_agent.core.sensors import Measured

SETTINGS = GuardSettings(
    minimum_samples=16,
    maximum_waiting_updates=8,
    maximum_temperature_celsius=75.0,
    minimum_battery_percent=30.0,
    minimum_free_memory_mib=64.0,
    mains_only=True,
    unthrottled_only=True,
    maximum_load_per_core=1.5,
    minimum_free_disk_mib=100.0,
    quiet_hours=["22:00-07:30", "12:00-13:00"],
    connected_only=True,
    unmetered_only=True,
    daily_cpu_seconds=100.0,
    daily_watt_hours=0.1,
    watts=3.6,
    daily_bytes=5000,
)
READ_FROM_THE_MACHINE = (
    "temperature",
    "battery",
    "free_memory_mib",
    "on_mains",
    "throttled",
    "load_per_core",
    "free_disk_mib",
    "metered",
    "minute",
)
AT_THE_LIMIT = Readings(
    stored_samples=16,
    waiting_updates=7,
    temperature=Measured(75.0, "cpu_thermal"),
    battery=Measured(30.0, "BAT0"),
    free_memory_mib=64.0,
    on_mains=True,
    throttled="",
    load_per_core=1.5,
    free_disk_mib=100.0,
    metered=False,
    minute=7 * 60 + 30,
    used=DailyUse(1, 99_999, 4999),
)


def test_every_guard_agrees_at_its_limit():
    assert refusal(SETTINGS, AT_THE_LIMIT) is None


@pytest.mark.parametrize(
    ("reading", "value", "words"),
    [
        ("stored_samples", 15, ("15 stored samples", "at least 16")),
        ("waiting_updates", 8, ("9 updates waiting", "at most 8")),
        ("sent_mib", 16.0, ("16.0 MiB of updates that were sent", "the limit is 16")),
        ("temperature", Measured(75.5, "cpu_thermal"), ("75.5 degrees Celsius (cpu_thermal)", "at most 75")),
        ("battery", Measured(29.5, "BAT0"), ("29.5 percent of battery (BAT0)", "at least 30")),
        ("free_memory_mib", 63.5, ("63.5 MiB", "at least 64")),
        ("on_mains", False, ("runs on its battery",)),
        ("throttled", "it is throttled", ("slows the board down: it is throttled",)),
        ("load_per_core", 1.6, ("1.6 processes per core", "at most 1.5")),
        ("free_disk_mib", 99.0, ("99 MiB of free disk", "at least 100")),
        ("minute", 7 * 60 + 29, ("it is 07:29", "22:00-07:30")),
        ("minute", 12 * 60, ("it is 12:00", "12:00-13:00")),
        ("connected", False, ("no connection",)),
        ("metered", True, ("the link is metered",)),
        ("used", DailyUse(1, 100_000, 0), ("100 seconds of processor time are used today", "budget is 100")),
        ("used", DailyUse(1, 0, 5000), ("5000 bytes on the link are used today", "budget is 5000")),
    ],
)
def test_guard_refuses_beyond_its_limit_with_value_and_limit(reading, value, words):
    said = refusal(SETTINGS, replace(AT_THE_LIMIT, **{reading: value}))
    assert said is not None
    assert all(word in said for word in words)


def test_sensor_that_a_device_lacks_refuses_nothing():
    assert refusal(SETTINGS, replace(AT_THE_LIMIT, **dict.fromkeys(READ_FROM_THE_MACHINE))) is None


@pytest.mark.parametrize("reading", READ_FROM_THE_MACHINE)
def test_reading_that_a_device_lacks_refuses_where_its_settings_say_so(reading):
    careful = msgspec.structs.replace(SETTINGS, when_unknown="refuse")
    assert "this machine can't tell" in refusal(careful, replace(AT_THE_LIMIT, **{reading: None}))
    assert refusal(careful, AT_THE_LIMIT) is None


def test_machine_that_can_tell_nothing_is_not_asked_for_what_is_not_limited():
    careful = GuardSettings(minimum_free_memory_mib=None, when_unknown="refuse")
    assert refusal(careful, replace(AT_THE_LIMIT, **dict.fromkeys(READ_FROM_THE_MACHINE))) is None


@given(st.integers(0, MINUTES_OF_A_DAY - 1), st.integers(0, MINUTES_OF_A_DAY - 1), st.integers(0, MINUTES_OF_A_DAY - 1))
def test_quiet_hours_and_their_complement_divide_the_day(begin, end, minute):
    def is_quiet(begin: int, end: int) -> bool:
        hours = f"{begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}"
        settings = GuardSettings(quiet_hours=[hours])
        return refusal(settings, Readings(stored_samples=16, waiting_updates=0, minute=minute)) is not None

    assert is_quiet(begin, begin)
    if begin != end:
        assert is_quiet(begin, end) != is_quiet(end, begin)


@pytest.mark.parametrize("hours", ["22-7", "24:00-07:00", "22:00 - 07:00", "22:00-07:60", ""])
def test_quiet_hours_that_are_none_are_refused_with_an_example(hours):
    with pytest.raises(ValueError, match=r"write times of day.*22:00-07:30"):
        GuardSettings(quiet_hours=[hours])


def test_limit_that_is_left_out_is_not_checked():
    unlimited = GuardSettings(minimum_free_memory_mib=None)
    burning = replace(
        AT_THE_LIMIT, temperature=Measured(900.0, "cpu"), battery=Measured(0.0, "BAT0"), free_memory_mib=0.0
    )
    assert refusal(unlimited, burning) is None


@pytest.mark.parametrize(
    ("reading", "value", "stops"),
    [
        ("temperature", Measured(75.5, "cpu_thermal"), True),
        ("battery", Measured(29.5, "BAT0"), True),
        ("on_mains", False, True),
        ("throttled", "it is throttled", True),
        ("minute", 12 * 60, True),
        ("metered", True, True),
        ("used", DailyUse(1, 100_000, 0), True),
        ("used", DailyUse(1, 0, 5000), True),
        ("load_per_core", 9.0, False),
        ("free_memory_mib", 1.0, False),
        ("stored_samples", 0, False),
        ("connected", False, False),
    ],
)
def test_round_that_has_begun_is_stopped_by_budgets_and_by_what_is_not_its_own_doing(reading, value, stops):
    changed = replace(AT_THE_LIMIT, **{reading: value})
    assert objection(SETTINGS, changed) == (refusal(SETTINGS, changed) if stops else None)


def test_energy_is_processor_time_at_the_devices_watts():
    settings = GuardSettings(daily_watt_hours=0.1, watts=3.6)
    full = Readings(stored_samples=16, waiting_updates=0, used=DailyUse(1, 100_000, 0))
    assert refusal(settings, full) == "0.1 watt-hours of training are used today, the budget is 0.1"
    assert refusal(settings, replace(full, used=DailyUse(1, 99_000, 0))) is None


def test_energy_without_watts_is_refused():
    with pytest.raises(ValueError, match=r"without watts; write what the device takes.*watts = 3.0"):
        GuardSettings(daily_watt_hours=1.0)


DAYS = st.integers(0, 3)


@given(st.lists(st.tuples(DAYS, st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1))
def test_use_is_the_sum_since_the_day_last_changed_whichever_way(uses):
    total = DailyUse()
    for day, cpu, transferred in uses:
        total = total.and_more(day, cpu_milliseconds=cpu, transferred=transferred)
    last = [*itertools.takewhile(lambda use: use[0] == uses[-1][0], reversed(uses))]
    assert total == DailyUse(uses[-1][0], sum(use[1] for use in last), sum(use[2] for use in last))
