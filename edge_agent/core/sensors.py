"""Which of a machine's sensors count for the guards: the board's own, unless agent.toml names another. Pure.

A disk's, a network card's or a mouse's sensor says nothing of whether this board may work, and may be stuck.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BOARD_SENSORS = (
    "cpu_thermal",  # Raspberry Pi, and most boards whose device tree names the zone so
    "cpu-thermal",
    "soc_thermal",
    "soc-thermal",
    "bcm2835_thermal",
    "coretemp",
    "k10temp",
    "zenpower",
    "x86_pkg_temp",
    "acpitz",
)
"""As hwmon and thermal zones are called; the first of these that is there counts."""

BOARD_WORDS = ("cpu", "soc")
"""In the name of another board's sensor, such as cpuss0-thermal."""

COLDEST_CELSIUS = -40.0
HOTTEST_CELSIUS = 125.0
"""What silicon is specified for: a value outside is a fault of the sensor."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A reading, and what it is of."""

    value: float
    sensor: str


@dataclass(frozen=True, slots=True)
class Battery:
    """A battery that the kernel lists; one of a device that is connected, such as a mouse, is not the machine's own."""

    name: str
    percent: float
    is_own: bool


def board_temperature(sensors: Mapping[str, Sequence[float]], wanted: str | None = None) -> Measured | None:
    """The hottest plausible value, in degrees Celsius, of the sensor `wanted` or else of the board's own; None without.

    `sensors` are values by the name of their sensor.
    """
    name = wanted or _board_sensor(sensors)
    plausible = [value for value in sensors.get(name, ()) if COLDEST_CELSIUS < value < HOTTEST_CELSIUS]
    return Measured(max(plausible), name) if plausible else None


def own_battery(batteries: Sequence[Battery], wanted: str | None = None) -> Measured | None:
    """The charge, in percent, of the battery `wanted`, or else of the emptiest of the machine's own; None without."""
    counted = [battery for battery in batteries if (battery.name == wanted if wanted else battery.is_own)]
    plausible = [battery for battery in counted if 0 <= battery.percent <= 100]
    emptiest = min(plausible, key=lambda battery: battery.percent, default=None)
    return None if emptiest is None else Measured(emptiest.percent, emptiest.name)


def _board_sensor(sensors: Mapping[str, Sequence[float]]) -> str:
    for name in BOARD_SENSORS:
        if name in sensors:
            return name
    return next((name for name in sorted(sensors) if any(word in name.lower() for word in BOARD_WORDS)), "")
