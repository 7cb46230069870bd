"""Guards: why an agent that was woken may still not train. Pure; `machine.py` takes the readings."""

from dataclasses import dataclass

from edge_agent.configuration import GuardSettings


@dataclass(frozen=True, slots=True)
class Readings:
    """The device right now. None where it has no such sensor; then that guard agrees."""

    stored_samples: int
    waiting_updates: int
    temperature_celsius: float | None
    battery_percent: float | None
    free_memory_mib: float | None


def refusal(settings: GuardSettings, now: Readings) -> str | None:
    """The first guard that refuses, in words with value and limit; None where all agree."""
    checks = (
        (now.stored_samples, settings.minimum_samples, False, "stored samples"),
        (
            now.waiting_updates + 1,
            settings.maximum_waiting_updates,
            True,
            "updates waiting for a receipt, this one included",
        ),
        (now.temperature_celsius, settings.maximum_temperature_celsius, True, "degrees Celsius"),
        (now.battery_percent, settings.minimum_battery_percent, False, "percent of battery"),
        (now.free_memory_mib, settings.minimum_free_memory_mib, False, "MiB of free memory"),
    )
    for value, limit, is_maximum, what in checks:
        if value is None or limit is None:
            continue
        if value > limit if is_maximum else value < limit:
            return f"{value:g} {what}, the limit is {'at most' if is_maximum else 'at least'} {limit:g}"
    return None
