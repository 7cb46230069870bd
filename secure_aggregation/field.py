"""The numbers that are masked and summed: whole levels of a clipped update, modulo a power of two. Pure.

    level = floor(x / step + u),  u even from [0, 1),  step = clip / most,  most = 2^(bits - 1) - 1

Stochastic rounding (QSGD, Alistarh et al. 2017, section 3.1): a level's expectation is x / step, and 0 stays 0. Sums of
weighted levels lie within most times the largest total weight, and beyond that by what noise there is; the modulus is
twice that or more, so that a sum modulo it, read as a signed number, is the sum itself.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.privacy.noise_shares import headroom
from secure_aggregation.bit_packing import LARGEST_WIDTH, SMALLEST_WIDTH, Words

Levels = NDArray[np.int64]

_DRAWS = 2.0**32
"""Values that a 32-bit draw has: a probability is kept to one part in so many."""


@dataclass(frozen=True, slots=True)
class Field:
    """Of one cohort: `clip` in the update's unit, `bits` of a level with its sign, `total_weight` of all devices.

    Where each device adds noise of `deviation` levels, all weights are 1.
    """

    clip: float
    bits: int
    total_weight: int
    deviation: int = 0

    @property
    def most(self) -> int:
        """The largest level; the smallest is its negative."""
        return (1 << self.bits - 1) - 1

    @property
    def step(self) -> float:
        """What one level stands for."""
        return self.clip / self.most

    @property
    def width(self) -> int:
        """Bits of the modulus, 8 at least: those of the largest sum, and its sign."""
        return max(SMALLEST_WIDTH, self.largest_sum(self.total_weight).bit_length() + 1)

    def largest_sum(self, total_weight: int) -> int:
        """The largest magnitude of a sum of updates of this total weight."""
        return self.most * total_weight + headroom(self.deviation, total_weight)

    def check(self) -> None:
        """Check that sums fit 32 bits.

        Raises:
            ProtocolError: `OUT_OF_BOUNDS`.
        """
        if self.width > LARGEST_WIDTH:
            raise ProtocolError(
                Reason.OUT_OF_BOUNDS,
                f"sums of {self.bits}-bit levels with a total weight of {self.total_weight} and noise of"
                f" {self.deviation} levels need {self.width} bits, at most {LARGEST_WIDTH} are there; lower bits,"
                " most_devices or the largest weight",
            )

    def rounded(self, entries: FloatVector | NDArray[np.float64], draws: Words) -> Levels:
        """Clip finite float[K] and round it; `draws` uint32[K] are even, secret, and used once."""
        scaled = np.clip(entries.astype(np.float64), -self.clip, self.clip) / self.step
        down = np.floor(scaled)
        levels: Levels = (down + (draws / _DRAWS < scaled - down)).astype(np.int64)
        return np.clip(levels, -self.most, self.most)  # the division above may round up beyond the last level

    def require_finite(self, entries: FloatVector) -> None:
        """Check that entries can be rounded.

        Raises:
            ProtocolError: `NOT_FINITE`.
        """
        finite = np.isfinite(entries)
        if not finite.all():
            at = int(np.argmin(finite))
            raise ProtocolError(
                Reason.NOT_FINITE,
                f"entry {at} of the update is {entries[at]}; only finite numbers can be masked: train again, with a"
                " lower learning rate",
            )

    def residues(self, levels: Levels) -> Words:
        """Levels modulo 2^32, which every modulus here divides."""
        return (levels & 0xFFFFFFFF).astype(np.uint32)

    def signed_sum(self, residues: Words, total_weight: int) -> Levels:
        """The sum that has these residues (uint32[K], modulo 2^width) over updates of this total weight.

        Raises:
            ProtocolError: `OUT_OF_BOUNDS`: no levels have that sum, so a device or a helper did not what it signed.
        """
        unused = np.uint32(LARGEST_WIDTH - self.width)
        total: Levels = ((residues << unused).view(np.int32) >> unused.astype(np.int32)).astype(np.int64)
        largest = self.largest_sum(total_weight)
        if (np.abs(total) > largest).any():
            at = int(np.argmax(np.abs(total)))
            raise ProtocolError(
                Reason.OUT_OF_BOUNDS,
                f"entry {at} of the sum is {total[at]}, beyond {largest}, the most that levels of total weight"
                f" {total_weight} give: a device sent more than it may, or a helper answered wrongly; drop the sum",
            )
        return total

    def values(self, levels: Levels) -> FloatVector:
        """What levels stand for, float32."""
        return (levels * self.step).astype(np.float32)
