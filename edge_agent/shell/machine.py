"""Readings of the machine that guards look at."""

import psutil

MIB = 1024 * 1024


def temperature_celsius() -> float | None:
    """The hottest sensor, or None without one."""
    sensors = psutil.sensors_temperatures() if hasattr(psutil, "sensors_temperatures") else {}
    return max((sensor.current for group in sensors.values() for sensor in group), default=None)


def battery_percent() -> float | None:
    """Charge of the battery, or None without one."""
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return None if battery is None else float(battery.percent)


def free_memory_mib() -> float:
    """Memory that a new process may take without swapping."""
    return psutil.virtual_memory().available / MIB
