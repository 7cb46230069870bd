"""Readings of the machine: what a board has not got is None, never an error."""

from types import SimpleNamespace

import psutil
import pytest

from edge_agent.shell import machine

READINGS = {"sensors_temperatures": machine.temperature_celsius, "sensors_battery": machine.battery_percent}


def raising(error: Exception):
    def read():
        raise error

    return read


@pytest.mark.parametrize("sensor", READINGS)
@pytest.mark.parametrize("error", [FileNotFoundError("/sys/class/power_supply"), PermissionError(), AttributeError()])
def test_board_without_a_sensor_reads_none(monkeypatch, sensor, error):
    monkeypatch.setattr(psutil, sensor, raising(error))
    assert READINGS[sensor]() is None


@pytest.mark.parametrize("sensor", READINGS)
def test_platform_without_such_sensors_reads_none(monkeypatch, sensor):
    monkeypatch.delattr(psutil, sensor)
    assert READINGS[sensor]() is None


def test_hottest_sensor_and_charge_are_read(monkeypatch):
    sensors = {"cpu": [SimpleNamespace(current=40.5), SimpleNamespace(current=61.0)], "disk": []}
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: sensors)
    monkeypatch.setattr(psutil, "sensors_battery", lambda: SimpleNamespace(percent=37))
    assert (machine.temperature_celsius(), machine.battery_percent()) == (61.0, 37.0)
    monkeypatch.setattr(psutil, "sensors_temperatures", dict)
    monkeypatch.setattr(psutil, "sensors_battery", lambda: None)
    assert (machine.temperature_celsius(), machine.battery_percent()) == (None, None)


def test_this_machine_can_be_read():
    machine.temperature_celsius()
    machine.battery_percent()
    assert machine.free_memory_mib() > 1
