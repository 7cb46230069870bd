"""A simulated rolling bearing, healthy or with one local fault, as an accelerometer on its housing measures it.

What is modelled, and after whom:

* Four characteristic frequencies from geometry and shaft speed, for a fixed outer ring and rolling without slip
  (Randall and Antoni 2011, "Rolling element bearing diagnostics: a tutorial", equations 1 to 4).
* Every contact with the fault is an impact. It rings a structural resonance, a decaying oscillation (McFadden and
  Smith 1984, "Model for the vibration produced by a single point defect in a rolling element bearing").
* The impact is as strong as the load where it happens: Stribeck's distribution over the load zone (McFadden and
  Smith 1984, equation 1). A fault on the outer ring stays in one place. One on the inner ring turns with the shaft,
  one on a ball with the cage, so that these are modulated with those periods. A worn cage pocket lets a ball skid as
  it enters the load zone, once a turn of the cage: weaker and longer than an impact.
* Rolling elements slip: intervals between impacts are drawn, their deviations add up, and the train is cyclostationary
  instead of periodic (Antoni and Randall 2003; Randall and Antoni 2011, section 3.2).
* Healthy machines sound too: shaft harmonics, a gear-like hum, broadband noise and a weakly excited resonance. Speed,
  load, resonance and noise differ from block to block, so loudness alone says little.
"""

from dataclasses import dataclass
from math import cos, pi
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 12_800
BLOCK_SAMPLES = 8192

Fault = Literal["outer_ring", "inner_ring", "ball", "cage"]
FAULTS: tuple[Fault, ...] = ("outer_ring", "inner_ring", "ball", "cage")


@dataclass(frozen=True, slots=True)
class Bearing:
    """Geometry: diameters in millimetres, contact angle in radians; by default a 6205 ball bearing's."""

    balls: int = 9
    ball_diameter: float = 7.94
    pitch_diameter: float = 39.04
    contact_angle: float = 0.0

    @property
    def ratio(self) -> float:
        """d / D cos(phi)."""
        return self.ball_diameter / self.pitch_diameter * cos(self.contact_angle)

    def outer_race_frequency(self, shaft_hz: float) -> float:
        """BPFO: how often a ball passes a point of the outer ring, in hertz."""
        return self.balls * shaft_hz / 2 * (1 - self.ratio)

    def inner_race_frequency(self, shaft_hz: float) -> float:
        """BPFI: how often a ball passes a point of the inner ring."""
        return self.balls * shaft_hz / 2 * (1 + self.ratio)

    def ball_spin_frequency(self, shaft_hz: float) -> float:
        """BSF: how often a ball turns about itself; its fault strikes a ring twice a turn."""
        return self.pitch_diameter * shaft_hz / (2 * self.ball_diameter) * (1 - self.ratio**2)

    def cage_frequency(self, shaft_hz: float) -> float:
        """FTF: how often the cage turns."""
        return shaft_hz / 2 * (1 - self.ratio)


@dataclass(frozen=True, slots=True)
class Condition:
    """What one block was recorded under. Accelerations in g (peak), frequencies in hertz."""

    shaft_hz: float
    load: float
    resonance_hz: float
    damping: float
    noise: float
    phase: float


SLIP = 0.015
"""Standard deviation of an interval between impacts over its mean: one to two per cent (Randall and Antoni 2011)."""
LOAD_DISTRIBUTION, LOAD_EXPONENT = 0.45, 1.5
"""Stribeck's epsilon for a bearing with a little clearance, and the exponent of point contacts."""


def draw_condition(generator: np.random.Generator) -> Condition:
    """An operating point of the machine: between 1,380 and 1,800 turns a minute, half to full load."""
    return Condition(
        shaft_hz=generator.uniform(23.0, 30.0),
        load=generator.uniform(0.5, 1.0),
        resonance_hz=generator.normal(3300.0, 60.0),
        damping=generator.uniform(0.04, 0.07),
        noise=generator.lognormal(np.log(0.05), 0.3),
        phase=generator.uniform(0, 2 * pi),
    )


def record(
    generator: np.random.Generator, fault: Fault | None = None, severity: float = 0.5, bearing: Bearing = Bearing()
) -> NDArray[np.float64]:
    """One block of acceleration float64 [8192] in g, under a condition of its own.

    `severity` is the acceleration in g of an impact at full load; 0 is no fault.
    """
    condition = draw_condition(generator)
    signal = _healthy(generator, condition)
    if fault is not None:
        signal += severity * _fault(generator, condition, fault, bearing)
    return signal


def load_zone(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the largest load at an angle (radians) from its direction: (1 - (1 - cos) / 2e)^n, or 0."""
    return np.maximum(1 - (1 - np.cos(angle)) / (2 * LOAD_DISTRIBUTION), 0.0) ** LOAD_EXPONENT


def _healthy(generator: np.random.Generator, condition: Condition) -> NDArray[np.float64]:
    time = np.arange(BLOCK_SAMPLES) / SAMPLE_RATE_HZ
    turning = 2 * pi * condition.shaft_hz * time + condition.phase
    amplitudes = condition.load * np.array([0.12, 0.06, 0.03]) * generator.lognormal(0, 0.2, 3)
    harmonics = sum(size * np.sin(order * turning) for order, size in enumerate(amplitudes, start=1))
    hum = 0.05 * condition.load * np.sin(21 * turning) * (1 + 0.3 * np.sin(turning))
    noise = condition.noise * generator.normal(size=BLOCK_SAMPLES)
    rubbing = 0.3 * condition.noise * _ring(generator.normal(size=BLOCK_SAMPLES), condition)
    return harmonics + hum + noise + rubbing


def _fault(generator: np.random.Generator, condition: Condition, fault: Fault, bearing: Bearing) -> NDArray[np.float64]:
    """The impacts of one fault, ringing, in units of a full load's impact."""
    shaft, cage = condition.shaft_hz, bearing.cage_frequency(condition.shaft_hz)
    rate, turning = {
        "outer_ring": (bearing.outer_race_frequency(shaft), 0.0),
        "inner_ring": (bearing.inner_race_frequency(shaft), shaft),
        "ball": (2 * bearing.ball_spin_frequency(shaft), cage),
        "cage": (cage, 0.0),
    }[fault]
    times = impact_times(generator, rate)
    strengths = condition.load * load_zone(2 * pi * turning * times + condition.phase * (turning > 0))
    excitation = np.zeros(BLOCK_SAMPLES)
    np.add.at(excitation, (times * SAMPLE_RATE_HZ).astype(np.int64), strengths)
    if fault == "cage":
        skid = generator.normal(size=round(0.012 * SAMPLE_RATE_HZ)) * np.hanning(round(0.012 * SAMPLE_RATE_HZ))
        excitation = 0.5 * np.convolve(excitation, skid)[:BLOCK_SAMPLES]
    return _ring(excitation, condition)


def impact_times(generator: np.random.Generator, rate_hz: float) -> NDArray[np.float64]:
    """When impacts fall into a block, in seconds. Slips add up, so late impacts are less certain than early ones."""
    seconds = BLOCK_SAMPLES / SAMPLE_RATE_HZ
    intervals = generator.normal(1 / rate_hz, SLIP / rate_hz, round(2 * seconds * rate_hz) + 8)
    times = generator.uniform(0, 1 / rate_hz) + np.cumsum(intervals) - intervals[0]
    return times[(times >= 0) & (times < seconds)]


def _ring(excitation: NDArray[np.float64], condition: Condition) -> NDArray[np.float64]:
    """The excitation through one resonance: exp(-damping omega t) sin(omega t)."""
    time = np.arange(BLOCK_SAMPLES // 8) / SAMPLE_RATE_HZ
    omega = 2 * pi * condition.resonance_hz
    answer = np.exp(-condition.damping * omega * time) * np.sin(omega * time)
    size = 2 * BLOCK_SAMPLES
    return np.fft.irfft(np.fft.rfft(excitation, size) * np.fft.rfft(answer, size), size)[:BLOCK_SAMPLES]
