"""Guards: why an agent that was woken may still not train. A new guard is a row of `GUARDS`, a setting and a reading.

Pure; `shell/machine.py` takes the readings.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import msgspec

from edge_agent.core.sensors import Measured
from fleet_protocol.configuration import PositiveInt, Seconds

MAX_TEMPERATURE_CELSIUS = 200.0
"""No board works at more."""
MAX_FREE_MEMORY_MIB = 1024.0 * 1024
"""One TiB."""


class GuardSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a device may not train, although there are samples. A limit that is left out is not checked."""

    minimum_samples: PositiveInt = 16
    """So many have to be stored."""
    maximum_waiting_updates: PositiveInt = 8
    """No update is made that would be more than this one in the outbox."""
    maximum_temperature_celsius: Annotated[float, msgspec.Meta(gt=0, le=MAX_TEMPERATURE_CELSIUS)] | None = None
    """Not while the board is hotter."""
    temperature_sensor: str | None = None
    """The sensor that counts, as `/sys/class/hwmon/*/name` has it; left out: the board's own."""
    minimum_battery_percent: Annotated[float, msgspec.Meta(gt=0, le=100)] | None = None
    """Not while the battery holds less."""
    battery: str | None = None
    """The battery that counts, as in `/sys/class/power_supply`; left out: the emptiest of the machine's own."""
    minimum_free_memory_mib: Annotated[float, msgspec.Meta(gt=0, le=MAX_FREE_MEMORY_MIB)] | None = 64.0
    """Not while less memory is free, in MiB."""
    recheck_seconds: Seconds = 60.0
    """A refused trigger is looked at again after so many seconds."""


@dataclass(frozen=True, slots=True)
class Readings:
    """The device's readings now. None where one can't be had; then that guard agrees."""

    stored_samples: int
    waiting_updates: int
    temperature: Measured | None = None
    battery: Measured | None = None
    free_memory_mib: float | None = None


Guard = Callable[[GuardSettings, Readings], str | None]
"""Why training is refused, in words with value and limit; None where the guard agrees."""


def refusal(settings: GuardSettings, now: Readings) -> str | None:
    """What the first guard that refuses says; None where all agree."""
    return next((refused for guard in GUARDS if (refused := guard(settings, now))), None)


def _enough_samples(settings: GuardSettings, now: Readings) -> str | None:
    return _at_least(settings.minimum_samples, now.stored_samples, "stored samples")


def _room_in_outbox(settings: GuardSettings, now: Readings) -> str | None:
    waiting = now.waiting_updates + 1
    return _at_most(settings.maximum_waiting_updates, waiting, "updates waiting for a receipt, this one included")


def _cool(settings: GuardSettings, now: Readings) -> str | None:
    if now.temperature is None:
        return None
    of = f"degrees Celsius ({now.temperature.sensor})"
    return _at_most(settings.maximum_temperature_celsius, now.temperature.value, of)


def _charged(settings: GuardSettings, now: Readings) -> str | None:
    if now.battery is None:
        return None
    return _at_least(settings.minimum_battery_percent, now.battery.value, f"percent of battery ({now.battery.sensor})")


def _free_memory(settings: GuardSettings, now: Readings) -> str | None:
    return _at_least(settings.minimum_free_memory_mib, now.free_memory_mib, "MiB of free memory")


def _at_least(limit: float | None, value: float | None, what: str) -> str | None:
    if value is None or limit is None or value >= limit:
        return None
    return f"{value:g} {what}, the limit is at least {limit:g}"


def _at_most(limit: float | None, value: float | None, what: str) -> str | None:
    if value is None or limit is None or value <= limit:
        return None
    return f"{value:g} {what}, the limit is at most {limit:g}"


GUARDS: tuple[Guard, ...] = (_enough_samples, _room_in_outbox, _cool, _charged, _free_memory)
"""In the order in which they are asked."""
