"""Readings of the machine: what a board has not got is unknown, what is not the board's own does not count."""

import time
from types import SimpleNamespace

import psutil
import pytest

from edge_agent.core.guards import GuardSettings
from edge_agent.core.sensors import Battery, Measured, board_temperature, own_battery
from edge_agent.shell.host import machine

EVERY_GUARD = GuardSettings(
    maximum_temperature_celsius=75.0, minimum_battery_percent=20.0, minimum_free_memory_mib=64.0
)
NO_GUARD = GuardSettings(minimum_free_memory_mib=None)


def raising(error: Exception):
    def read():
        raise error

    return read


def temperatures(monkeypatch, **sensors: float) -> None:
    groups = {name: [SimpleNamespace(current=value)] for name, value in sensors.items()}
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: groups)


def supply(folder, name: str, **files: str):
    (folder / name).mkdir()
    for file, text in files.items():
        (folder / name / file).write_text(text + "\n")


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError("hwmon"), PermissionError(), RuntimeError(), ValueError(), KeyError("Cached")],
)
def test_what_can_not_be_read_is_unknown(monkeypatch, tmp_path, error):
    monkeypatch.setattr(psutil, "sensors_temperatures", raising(error))
    monkeypatch.setattr(psutil, "virtual_memory", raising(error))
    assert machine.temperature(EVERY_GUARD) is None
    assert machine.battery(EVERY_GUARD, tmp_path / "missing") is None
    assert machine.free_memory_mib(EVERY_GUARD) is None


def test_platform_without_such_sensors_reads_none(monkeypatch):
    monkeypatch.delattr(psutil, "sensors_temperatures")
    assert machine.temperature(EVERY_GUARD) is None


def test_what_no_guard_needs_is_not_read(monkeypatch):
    for reading in ("sensors_temperatures", "virtual_memory"):
        monkeypatch.setattr(psutil, reading, lambda: pytest.fail("it was read"))
    monkeypatch.setattr(machine, "_batteries", lambda _: pytest.fail("it was read"))
    assert machine.temperature(NO_GUARD) is None
    assert machine.battery(NO_GUARD) is None
    assert machine.free_memory_mib(NO_GUARD) is None


def test_this_machine_can_be_read():
    machine.temperature(EVERY_GUARD)
    machine.battery(EVERY_GUARD)
    assert machine.free_memory_mib(EVERY_GUARD) > 1


@pytest.mark.parametrize("own", ["cpu_thermal", "soc_thermal", "coretemp", "k10temp", "acpitz", "cpuss0-thermal"])
def test_boards_own_sensor_counts_and_a_hotter_one_of_something_else_does_not(own):
    sensors = {"nvme": [81.85], own: [40.5, 61.0], "iwlwifi_1": [90.0], "amdgpu": [95.0]}
    assert board_temperature(sensors) == Measured(61.0, own)
    assert board_temperature({"nvme": [81.85], "iwlwifi_1": [90.0]}) is None


def test_sensor_can_be_selected():
    sensors = {"nvme": [81.85], "cpu_thermal": [61.0]}
    assert board_temperature(sensors, "nvme") == Measured(81.85, "nvme")
    assert board_temperature(sensors, "ds18b20") is None


@pytest.mark.parametrize("fault", [-273.15, -40.0, 125.0, 255.0, 65_535.0, float("nan"), float("inf")])
def test_implausible_value_does_not_count(fault):
    assert board_temperature({"cpu_thermal": [fault]}) is None
    assert board_temperature({"cpu_thermal": [fault, 50.0]}) == Measured(50.0, "cpu_thermal")
    assert own_battery([Battery("BAT0", fault if fault != 125.0 else 101.0, is_own=True)]) is None


def test_emptiest_own_battery_counts_and_a_mouses_does_not(tmp_path):
    supply(tmp_path, "AC", type="Mains", online="1")
    supply(tmp_path, "hidpp_battery_0", type="Battery", scope="Device", capacity="5")
    assert machine.battery(EVERY_GUARD, tmp_path) is None
    supply(tmp_path, "BAT0", type="Battery", capacity="80")
    supply(tmp_path, "BAT1", type="Battery", scope="System", capacity="60")
    supply(tmp_path, "BAT2", type="Battery", status="Unknown")
    assert machine.battery(EVERY_GUARD, tmp_path) == Measured(60.0, "BAT1")
    selected = GuardSettings(minimum_battery_percent=20.0, battery="hidpp_battery_0")
    assert machine.battery(selected, tmp_path) == Measured(5.0, "hidpp_battery_0")


def test_limit_without_its_sensor_is_said_with_what_is_there(monkeypatch, tmp_path):
    temperatures(monkeypatch, nvme=81.85)
    supply(tmp_path, "hidpp_battery_0", type="Battery", scope="Device", capacity="5")
    about_temperature, about_battery = machine.missing(EVERY_GUARD, tmp_path)
    assert about_temperature == "maximum_temperature_celsius: no sensor of the board; there is nvme"
    assert about_battery == "minimum_battery_percent: no battery of the machine; there is hidpp_battery_0"
    temperatures(monkeypatch, nvme=81.85, cpu_thermal=50.0)
    supply(tmp_path, "BAT0", type="Battery", capacity="80")
    assert machine.missing(EVERY_GUARD, tmp_path) == []
    assert machine.missing(NO_GUARD, tmp_path) == []


NEW_GUARDS = GuardSettings(mains_only=True, unthrottled_only=True, maximum_load_per_core=1.0, minimum_free_disk_mib=1.0)


def test_machine_runs_on_mains_where_any_supply_but_a_battery_is_connected(tmp_path):
    supply(tmp_path, "BAT0", type="Battery", capacity="90", online="1")
    assert machine.on_mains(NEW_GUARDS, tmp_path) is None
    supply(tmp_path, "AC", type="Mains", online="0")
    assert machine.on_mains(NEW_GUARDS, tmp_path) is False
    supply(tmp_path, "usb", type="USB", online="1")
    assert machine.on_mains(NEW_GUARDS, tmp_path) is True


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("0", ""),
        ("50000", ""),  # of the past
        ("50005", "the supply's voltage is low, it is throttled"),
        ("8", "it is at its soft temperature limit"),
    ],
)
def test_firmware_says_why_it_slows_the_board_down_now(tmp_path, monkeypatch, flags, words):
    (tmp_path / "get_throttled").write_text(flags + "\n")
    assert machine.throttled(NEW_GUARDS, tmp_path / "get_throttled") == words
    monkeypatch.setattr(machine, "VCGENCMD", ("echo", f"throttled=0x{flags}"))
    assert machine.throttled(NEW_GUARDS, tmp_path / "missing") == words


@pytest.mark.parametrize("command", [("false",), ("echo", "throttled=what"), ("no-such-command",)])
def test_board_without_such_firmware_can_not_tell(tmp_path, monkeypatch, command):
    monkeypatch.setattr(machine, "VCGENCMD", command)
    assert machine.throttled(NEW_GUARDS, tmp_path / "missing") is None


def test_load_and_room_of_this_machine_can_be_read(tmp_path):
    assert machine.load_per_core(NEW_GUARDS) >= 0
    assert machine.free_disk_mib(NEW_GUARDS, tmp_path) > 0
    assert machine.free_disk_mib(NEW_GUARDS, tmp_path / "missing") is None
    assert 0 <= machine.minute_of_day() < 24 * 60


def test_machine_that_shows_a_year_before_any_edgeflock_does_not_know_the_time(monkeypatch):
    monkeypatch.setattr(time, "localtime", lambda: time.gmtime(30))
    assert machine.minute_of_day() is None


def test_nothing_new_is_read_where_no_guard_needs_it(monkeypatch, tmp_path):
    for reader in ("_supplies", "_text", "_or_unknown"):
        monkeypatch.setattr(machine, reader, lambda *_: pytest.fail("it was read"))
    assert machine.on_mains(NO_GUARD) is None
    assert machine.throttled(NO_GUARD) is None
    assert machine.load_per_core(NO_GUARD) is None
    assert machine.free_disk_mib(NO_GUARD, tmp_path) is None


def test_guard_whose_reading_this_machine_lacks_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "VCGENCMD", ("false",))
    supply(tmp_path, "BAT0", type="Battery", capacity="90")
    first, second = machine.missing(GuardSettings(mains_only=True, unthrottled_only=True), tmp_path)
    assert (first.startswith("mains_only: "), "BAT0" in first) == (True, True)
    assert second.startswith("unthrottled_only: ")
