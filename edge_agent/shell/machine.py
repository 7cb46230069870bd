"""The machine's readings that guards check. What can't be had is unknown; what no guard needs is not read."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import psutil

from edge_agent.core.guards import GuardSettings
from edge_agent.core.sensors import Battery, Measured, board_temperature, own_battery
from fleet_protocol.limits import MIB

POWER_SUPPLIES = Path("/sys/class/power_supply")
"""Read here rather than by psutil, which takes a mouse's battery for the machine's."""

Value = TypeVar("Value")


def temperature(settings: GuardSettings) -> Measured | None:
    """Of the sensor that counts, in degrees Celsius."""
    if settings.maximum_temperature_celsius is None:
        return None
    return board_temperature(_temperatures(), settings.temperature_sensor)


def battery(settings: GuardSettings, folder: Path = POWER_SUPPLIES) -> Measured | None:
    """Charge of the battery that counts, in percent."""
    if settings.minimum_battery_percent is None:
        return None
    return own_battery(list(_batteries(folder)), settings.battery)


def free_memory_mib(settings: GuardSettings) -> float | None:
    """Memory that a new process may take without swapping."""
    if settings.minimum_free_memory_mib is None:
        return None
    return _or_unknown(_available_mib)


def missing(settings: GuardSettings, folder: Path = POWER_SUPPLIES) -> list[str]:
    """What a guard asks for and this machine does not have, in words with what it has."""
    found = []
    if settings.maximum_temperature_celsius is not None and temperature(settings) is None:
        wanted = settings.temperature_sensor or "of the board"
        found.append(f"maximum_temperature_celsius: no sensor {wanted}; there is {_listed(_temperatures())}")
    if settings.minimum_battery_percent is not None and battery(settings, folder) is None:
        wanted = settings.battery or "of the machine"
        there = _listed(each.name for each in _batteries(folder))
        found.append(f"minimum_battery_percent: no battery {wanted}; there is {there}")
    return found


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _available_mib() -> float:
    return psutil.virtual_memory().available / MIB


def _temperatures() -> Mapping[str, Sequence[float]]:
    return _or_unknown(_sensor_values) or {}


def _sensor_values() -> Mapping[str, Sequence[float]]:
    return {name: [sensor.current for sensor in group] for name, group in psutil.sensors_temperatures().items()}


def _batteries(folder: Path) -> Iterator[Battery]:
    for supply in _or_unknown(lambda: sorted(folder.iterdir())) or []:
        charge = _or_unknown(partial(_number, supply / "capacity"))
        if charge is not None and _text(supply / "type") == "Battery":
            yield Battery(supply.name, charge, is_own=_text(supply / "scope") != "Device")


def _number(file: Path) -> float:
    return float(file.read_text())


def _text(file: Path) -> str:
    return (_or_unknown(file.read_text) or "").strip()


def _or_unknown(read: Callable[[], Value]) -> Value | None:
    """What `read` gives; None where it raises: sysfs differs by board, and psutil with it."""
    try:
        return read()
    except Exception:
        return None
