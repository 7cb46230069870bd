"""Guards: at its limit a guard agrees, beyond it refuses and says by how much; a sensor that lacks refuses nothing."""

from dataclasses import replace

import msgspec
import pytest

from edge_agent.core.guards import GuardSettings, Readings, refusal
from edge_agent.core.sensors import Measured

SETTINGS = GuardSettings(
    minimum_samples=16,
    maximum_waiting_updates=8,
    maximum_temperature_celsius=75.0,
    minimum_battery_percent=30.0,
    minimum_free_memory_mib=64.0,
)
AT_THE_LIMIT = Readings(
    stored_samples=16,
    waiting_updates=7,
    temperature=Measured(75.0, "cpu_thermal"),
    battery=Measured(30.0, "BAT0"),
    free_memory_mib=64.0,
)


def test_every_guard_agrees_at_its_limit():
    assert refusal(SETTINGS, AT_THE_LIMIT) is None


@pytest.mark.parametrize(
    ("reading", "value", "words"),
    [
        ("stored_samples", 15, ("15 stored samples", "at least 16")),
        ("waiting_updates", 8, ("9 updates waiting", "at most 8")),
        ("temperature", Measured(75.5, "cpu_thermal"), ("75.5 degrees Celsius (cpu_thermal)", "at most 75")),
        ("battery", Measured(29.5, "BAT0"), ("29.5 percent of battery (BAT0)", "at least 30")),
        ("free_memory_mib", 63.5, ("63.5 MiB", "at least 64")),
    ],
)
def test_guard_refuses_beyond_its_limit_with_value_and_limit(reading, value, words):
    said = refusal(SETTINGS, replace(AT_THE_LIMIT, **{reading: value}))
    assert said is not None
    assert all(word in said for word in words)


def test_sensor_that_a_device_lacks_refuses_nothing():
    blind = replace(AT_THE_LIMIT, temperature=None, battery=None, free_memory_mib=None)
    assert refusal(SETTINGS, blind) is None


def test_limit_that_is_left_out_is_not_checked():
    unlimited = msgspec.structs.replace(
        SETTINGS, maximum_temperature_celsius=None, minimum_battery_percent=None, minimum_free_memory_mib=None
    )
    burning = replace(
        AT_THE_LIMIT, temperature=Measured(900.0, "cpu"), battery=Measured(0.0, "BAT0"), free_memory_mib=0.0
    )
    assert refusal(unlimited, burning) is None
