"""Guards: why an agent that was woken may still not train. A new guard is a row of `GUARDS`, a setting and a reading.

Pure; `shell/machine.py` takes the readings.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from edge_agent.core.daily_use import NOTHING_USED, DailyUse
from edge_agent.core.sensors import Measured
from fleet_protocol.configuration import PositiveInt, Seconds, Text

MAX_TEMPERATURE_CELSIUS = 200.0
"""No board works at more."""
MAX_FREE_MEMORY_MIB = 1024.0 * 1024
"""One TiB."""
MAX_WAITING_MIB = 1024 * 1024
"""One TiB."""
MAX_LOAD_PER_CORE = 1000.0
"""More than any machine answers at."""
MAX_FREE_DISK_MIB = 1024.0**3
"""One PiB."""
MAX_WATTS = 1000.0
"""No device that an agent runs on takes more."""
MAX_DAILY_CPU_SECONDS = 256 * 86_400.0
"""A day of 256 cores."""
MAX_DAILY_WATT_HOURS = 24 * MAX_WATTS

MINUTES_OF_A_DAY = 24 * 60
MILLISECONDS_OF_AN_HOUR = 3_600_000

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


class GuardSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a device may not train, although there are samples. A limit that is left out is not checked."""

    minimum_samples: PositiveInt = 16
    """So many have to be stored."""
    maximum_waiting_updates: PositiveInt = 8
    """No update is made that would be more than this one in the outbox."""
    maximum_waiting_mib: Annotated[int, msgspec.Meta(ge=1, le=MAX_WAITING_MIB)] = 16
    """So much may wait in the outbox, in MiB: beyond it, the stalest that was never sent is learned again with the next
    round. What was sent has to wait for its receipt: no update is made while that alone is so much."""
    maximum_temperature_celsius: Annotated[float, msgspec.Meta(gt=0, le=MAX_TEMPERATURE_CELSIUS)] | None = None
    """Not while the board is hotter."""
    temperature_sensor: Text | None = None
    """The sensor that counts, as `/sys/class/hwmon/*/name` has it; left out: the board's own."""
    minimum_battery_percent: Annotated[float, msgspec.Meta(gt=0, le=100)] | None = None
    """Not while the battery holds less."""
    battery: Text | None = None
    """The battery that counts, as in `/sys/class/power_supply`; left out: the emptiest of the machine's own."""
    minimum_free_memory_mib: Annotated[float, msgspec.Meta(gt=0, le=MAX_FREE_MEMORY_MIB)] | None = 64.0
    """Not while less memory is free, in MiB."""
    mains_only: bool = False
    """Not while the machine runs on its battery."""
    unthrottled_only: bool = False
    """Not while the firmware slows the board down, for heat or low voltage (Raspberry Pi)."""
    maximum_load_per_core: Annotated[float, msgspec.Meta(gt=0, le=MAX_LOAD_PER_CORE)] | None = None
    """Not while more processes than this, for each core, want to run: the mean of the last minute."""
    minimum_free_disk_mib: Annotated[float, msgspec.Meta(gt=0, le=MAX_FREE_DISK_MIB)] | None = None
    """Not while less room is free where `state_folder` is, in MiB."""
    quiet_hours: list[Text] = []
    """Not in these times of day, local time, such as `"22:00-07:30"`: the end is no longer quiet."""
    connected_only: bool = False
    """Not while there is no connection to the broker."""
    unmetered_only: bool = False
    """Not while the link costs by volume: as NetworkManager says or guesses, else where the default route goes over
    a modem."""
    daily_cpu_seconds: Annotated[float, msgspec.Meta(gt=0, le=MAX_DAILY_CPU_SECONDS)] | None = None
    """Not once trainings have used so much processor time on this local day."""
    daily_watt_hours: Annotated[float, msgspec.Meta(gt=0, le=MAX_DAILY_WATT_HOURS)] | None = None
    """Not once that time, at `watts`, is so much energy."""
    watts: Annotated[float, msgspec.Meta(gt=0, le=MAX_WATTS)] | None = None
    """What the device takes while it trains: a profile's figure, which `daily_watt_hours` needs."""
    daily_bytes: PositiveInt | None = None
    """Not once so many bytes of messages went up and came down on this local day."""
    when_unknown: Literal["agree", "refuse"] = "agree"
    """What a guard says whose limit is set and whose reading this machine can't give."""
    recheck_seconds: Seconds = 60.0
    """A refused trigger is looked at again after so many seconds."""

    @property
    def has_budget(self) -> bool:
        """Whether what the device uses in a day counts."""
        return (self.daily_cpu_seconds, self.daily_watt_hours, self.daily_bytes) != (None, None, None)

    def __post_init__(self) -> None:
        """Refuse what every value by itself allows; raises ValueError."""
        if self.daily_watt_hours is not None and self.watts is None:
            raise ValueError("daily_watt_hours without watts; write what the device takes in training, as watts = 3.0")
        for hours in self.quiet_hours:
            if not _HOURS.fullmatch(hours):
                raise ValueError(f"quiet_hours has {hours!r}; write times of day from 00:00 to 23:59, as '22:00-07:30'")


@dataclass(frozen=True, slots=True)
class Readings:
    """The device's readings now. None where one can't be had; then `when_unknown` decides.

    `sent_mib` is what was sent and waits for its receipt. `throttled` says why the firmware slows the board down, empty
    where it does not. `minute` is of the local day.
    """

    stored_samples: int
    waiting_updates: int
    sent_mib: float = 0.0
    connected: bool = True
    temperature: Measured | None = None
    battery: Measured | None = None
    free_memory_mib: float | None = None
    on_mains: bool | None = None
    throttled: str | None = None
    load_per_core: float | None = None
    free_disk_mib: float | None = None
    metered: bool | None = None
    minute: int | None = 0
    used: DailyUse = NOTHING_USED


Guard = Callable[[GuardSettings, Readings], str | None]
"""Why training is refused, in words with value and limit; None where the guard agrees."""


def refusal(settings: GuardSettings, now: Readings) -> str | None:
    """What the first guard that refuses says; None where all agree to a round."""
    for guard in GUARDS:
        if refused := guard(settings, now):
            return refused
    return None


def objection(settings: GuardSettings, now: Readings) -> str | None:
    """What the first guard says that stops a round which has begun; None where it goes on."""
    return next((refused for guard in STOPPING_GUARDS if (refused := guard(settings, now))), None)


def _enough_samples(settings: GuardSettings, now: Readings) -> str | None:
    return _at_least(settings, settings.minimum_samples, now.stored_samples, "stored samples")


def _room_in_outbox(settings: GuardSettings, now: Readings) -> str | None:
    of = "updates waiting for a receipt, this one included"
    return _at_most(settings, settings.maximum_waiting_updates, now.waiting_updates + 1, of)


def _receipts_come(settings: GuardSettings, now: Readings) -> str | None:
    return _below(settings.maximum_waiting_mib, now.sent_mib, "MiB of updates that were sent wait for a receipt")


def _cool(settings: GuardSettings, now: Readings) -> str | None:
    of = f"degrees Celsius ({now.temperature.sensor})" if now.temperature else "degrees Celsius"
    return _at_most(settings, settings.maximum_temperature_celsius, _value(now.temperature), of)


def _charged(settings: GuardSettings, now: Readings) -> str | None:
    of = f"percent of battery ({now.battery.sensor})" if now.battery else "percent of battery"
    return _at_least(settings, settings.minimum_battery_percent, _value(now.battery), of)


def _free_memory(settings: GuardSettings, now: Readings) -> str | None:
    return _at_least(settings, settings.minimum_free_memory_mib, now.free_memory_mib, "MiB of free memory")


def _on_mains(settings: GuardSettings, now: Readings) -> str | None:
    if not settings.mains_only or now.on_mains:
        return None
    return _unknown(settings, "source of power") if now.on_mains is None else "the machine runs on its battery"


def _unthrottled(settings: GuardSettings, now: Readings) -> str | None:
    if not settings.unthrottled_only or now.throttled == "":
        return None
    if now.throttled is None:
        return _unknown(settings, "state of the firmware's throttling")
    return f"the firmware slows the board down: {now.throttled}"


def _idle_cores(settings: GuardSettings, now: Readings) -> str | None:
    return _at_most(settings, settings.maximum_load_per_core, now.load_per_core, "processes per core want to run")


def _free_disk(settings: GuardSettings, now: Readings) -> str | None:
    return _at_least(settings, settings.minimum_free_disk_mib, now.free_disk_mib, "MiB of free disk")


def _not_quiet(settings: GuardSettings, now: Readings) -> str | None:
    if not settings.quiet_hours or now.minute is None:
        return _unknown(settings, "time of day") if settings.quiet_hours else None
    shown = f"{now.minute // 60:02}:{now.minute % 60:02}"
    quiet = (hours for hours in settings.quiet_hours if _is_within(hours, now.minute))
    return next((f"it is {shown}, in the quiet hours {hours}" for hours in quiet), None)


def _connected(settings: GuardSettings, now: Readings) -> str | None:
    return "no connection to the broker" if settings.connected_only and not now.connected else None


def _unmetered(settings: GuardSettings, now: Readings) -> str | None:
    if not settings.unmetered_only or now.metered is False:
        return None
    return _unknown(settings, "cost of its link") if now.metered is None else "the link is metered"


def _processor_time_left(settings: GuardSettings, now: Readings) -> str | None:
    return _used_up(settings.daily_cpu_seconds, now.used.cpu_milliseconds / 1000, "seconds of processor time")


def _energy_left(settings: GuardSettings, now: Readings) -> str | None:
    used = now.used.cpu_milliseconds * (settings.watts or 0) / MILLISECONDS_OF_AN_HOUR
    return _used_up(settings.daily_watt_hours, used, "watt-hours of training")


def _bytes_left(settings: GuardSettings, now: Readings) -> str | None:
    return _used_up(settings.daily_bytes, now.used.bytes, "bytes on the link")


def _used_up(budget: float | None, used: float, what: str) -> str | None:
    return None if budget is None or used < budget else f"{used:g} {what} are used today, the budget is {budget:g}"


def _is_within(hours: str, minute: int) -> bool:
    """Whether a minute of the day lies in hours such as 22:00-07:30, over midnight too; equal ends are a whole day."""
    begin, end = (60 * int(hours[at : at + 2]) + int(hours[at + 3 : at + 5]) for at in (0, 6))
    return (minute - begin) % MINUTES_OF_A_DAY < ((end - begin) % MINUTES_OF_A_DAY or MINUTES_OF_A_DAY)


def _value(measured: Measured | None) -> float | None:
    return None if measured is None else measured.value


def _at_least(settings: GuardSettings, limit: float | None, value: float | None, what: str) -> str | None:
    if value is None or limit is None:
        return None if limit is None else _unknown(settings, what)
    return None if value >= limit else f"{value:g} {what}, the limit is at least {limit:g}"


def _below(limit: float, value: float, what: str) -> str | None:
    return None if value < limit else f"{value:.1f} {what}, the limit is {limit:g}"


def _at_most(settings: GuardSettings, limit: float | None, value: float | None, what: str) -> str | None:
    if value is None or limit is None:
        return None if limit is None else _unknown(settings, what)
    return None if value <= limit else f"{value:g} {what}, the limit is at most {limit:g}"


def _unknown(settings: GuardSettings, what: str) -> str | None:
    if settings.when_unknown == "agree":
        return None
    return f"this machine can't tell the {what}, and when_unknown is refuse"


GUARDS: tuple[Guard, ...] = (
    _enough_samples,
    _room_in_outbox,
    _receipts_come,
    _not_quiet,
    _connected,
    _unmetered,
    _on_mains,
    _charged,
    _cool,
    _unthrottled,
    _free_memory,
    _free_disk,
    _idle_cores,
    _processor_time_left,
    _energy_left,
    _bytes_left,
)
"""In the order in which they are asked."""

STOPPING_GUARDS: tuple[Guard, ...] = (
    _not_quiet,
    _unmetered,
    _on_mains,
    _charged,
    _cool,
    _unthrottled,
    _processor_time_left,
    _energy_left,
    _bytes_left,
)
"""Of them, those that stop a round which has begun. Load and memory are the round's own by then."""
