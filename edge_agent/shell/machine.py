"""The machine's readings that guards check."""

import psutil

from fleet_protocol.limits import MIB


def temperature_celsius() -> float | None:
    """The hottest sensor, or None without one."""
    try:
        sensors = psutil.sensors_temperatures()
    except (AttributeError, OSError):  # not on this platform; sysfs lacks what psutil expects
        return None
    return max((sensor.current for group in sensors.values() for sensor in group), default=None)


def battery_percent() -> float | None:
    """Charge of the battery, or None without one."""
    try:
        battery = psutil.sensors_battery()
    except (AttributeError, OSError):  # as where sysfs has no power_supply
        return None
    return None if battery is None else float(battery.percent)


def free_memory_mib() -> float:
    """Memory that a new process may take without swapping."""
    return psutil.virtual_memory().available / MIB
