"""The machine's readings that guards check. What can't be had is unknown; what no guard needs is not read."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import psutil

from edge_agent.core.daily_use import DailyUse
from edge_agent.core.guards import GuardSettings, Readings
from edge_agent.core.sensors import Battery, Measured, board_temperature, own_battery
from edge_agent.shell.host import network
from fleet_host.wall_clock import local_time
from fleet_protocol.limits import MIB

POWER_SUPPLIES = Path("/sys/class/power_supply")
"""Read here rather than by psutil, which takes a mouse's battery for the machine's."""
THROTTLED = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")
"""Of a Raspberry Pi: the flags that `vcgencmd get_throttled` prints, in hex."""
THROTTLED_NOW = (
    "the supply's voltage is low",
    "its frequency is capped",
    "it is throttled",
    "it is at its soft temperature limit",
)
"""By bit, of those that say what is so now."""
VCGENCMD = ("vcgencmd", "get_throttled")
VCGENCMD_SECONDS = 2.0

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


def on_mains(settings: GuardSettings, folder: Path = POWER_SUPPLIES) -> bool | None:
    """Whether any supply but a battery is connected; a machine that lists none can't tell."""
    if not settings.mains_only:
        return None
    online = [
        _or_unknown(partial(_number, supply / "online")) for supply in _supplies(folder) if not _is_battery(supply)
    ]
    return any(online) if online else None


def throttled(settings: GuardSettings, file: Path = THROTTLED) -> str | None:
    """Why the firmware slows the board down now; empty where it does not."""
    if not settings.unthrottled_only:
        return None
    said = _text(file) or _or_unknown(_asked_of_firmware)
    flags = _or_unknown(lambda: int((said or "").rpartition("=")[2], 16))
    if flags is None:
        return None
    return ", ".join(words for bit, words in enumerate(THROTTLED_NOW) if flags >> bit & 1)


def load_per_core(settings: GuardSettings) -> float | None:
    """Processes that want to run, the mean of the last minute, for each core."""
    if settings.maximum_load_per_core is None:
        return None
    return _or_unknown(lambda: os.getloadavg()[0] / (os.cpu_count() or 1))


def free_disk_mib(settings: GuardSettings, folder: Path) -> float | None:
    """Room where a folder is."""
    if settings.minimum_free_disk_mib is None:
        return None
    return _or_unknown(lambda: shutil.disk_usage(folder).free / MIB)


def minute_of_day() -> int | None:
    """Of the local day; None where the machine does not know the time."""
    now = local_time()
    return None if now is None else 60 * now.tm_hour + now.tm_min


def readings(
    settings: GuardSettings,
    state_folder: Path,
    *,
    stored_samples: int,
    waiting_updates: int,
    sent_mib: float,
    connected: bool,
    used: DailyUse,
) -> Readings:
    """All that guards look at."""
    return Readings(
        stored_samples=stored_samples,
        waiting_updates=waiting_updates,
        sent_mib=sent_mib,
        connected=connected,
        temperature=temperature(settings),
        battery=battery(settings),
        free_memory_mib=free_memory_mib(settings),
        on_mains=on_mains(settings),
        throttled=throttled(settings),
        load_per_core=load_per_core(settings),
        free_disk_mib=free_disk_mib(settings, state_folder),
        metered=network.metered() if settings.unmetered_only else None,
        minute=minute_of_day(),
        used=used,
    )


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
    if settings.mains_only and on_mains(settings, folder) is None:
        there = _listed(supply.name for supply in _supplies(folder))
        found.append(f"mains_only: no supply that says whether it is connected; there is {there}")
    if settings.unthrottled_only and throttled(settings) is None:
        found.append(f"unthrottled_only: neither {THROTTLED} nor vcgencmd answers")
    if settings.unmetered_only and network.metered() is None:
        found.append("unmetered_only: NetworkManager does not answer, and the default route is over no modem")
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
    for supply in _supplies(folder):
        charge = _or_unknown(partial(_number, supply / "capacity"))
        if charge is not None and _is_battery(supply):
            yield Battery(supply.name, charge, is_own=_text(supply / "scope") != "Device")


def _supplies(folder: Path) -> list[Path]:
    return _or_unknown(lambda: sorted(folder.iterdir())) or []


def _is_battery(supply: Path) -> bool:
    return _text(supply / "type") == "Battery"


def _asked_of_firmware() -> str:
    asked = subprocess.run(VCGENCMD, capture_output=True, text=True, timeout=VCGENCMD_SECONDS, check=True)
    return asked.stdout


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
