"""An update's entries as levels, without noise or with a device's share of it. Pure.

Without noise, an entry is clipped and rounded. With it, all entries are first scaled down to the norm that one device
may send, and rounding is done again where it has made them longer than the noise is for (Kairouz, Liu & Steinke 2021,
algorithm 1). So no update moves a sum further, whatever is in it.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.privacy.noise_shares import NoisedUpdates
from secure_aggregation.bit_packing import Words
from secure_aggregation.discrete_gaussian import RandomBytes, discrete_gaussian
from secure_aggregation.field import Field, Levels
from secure_aggregation.masks import key_stream

_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Rounded:
    """An update's levels, int64[entries]: as they are `told`, and `plain`, without noise. Entries were scaled by
    `scale`, 1 where they were short enough.
    """

    told: Levels
    plain: Levels
    scale: float = 1.0


def rounded(field: Field, entries: FloatVector, noised: NoisedUpdates | None, random_bytes: RandomBytes) -> Rounded:
    """Round float32[K] to levels, and add the noise that hides them, where there is any.

    Raises:
        ProtocolError: `NOT_FINITE`: an entry. `OUT_OF_BOUNDS`: the cohort has other noise than what is to hide them, or
            other entries.
    """
    asked = (noised.deviation, noised.entries) if noised else (0, entries.size)
    if (field.deviation, entries.size) != asked:
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS,
            f"the cohort has noise of {field.deviation} levels on {entries.size} entries, its task {asked[0]} on"
            f" {asked[1]}; the task has to be published again",
        )
    field.require_finite(entries)
    if noised is None:
        levels = field.rounded(entries, _draws(entries.size, random_bytes))
        return Rounded(levels, levels)
    exact = entries.astype(np.float64)
    length = float(np.linalg.norm(exact)) / field.step
    scale = min(1.0, noised.norm / length) if length else 1.0
    plain = field.rounded(exact * scale, _draws(entries.size, random_bytes))
    while int(plain @ plain) > noised.largest_square:
        plain = field.rounded(exact * scale, _draws(entries.size, random_bytes))
    return Rounded(plain + discrete_gaussian(plain.size, noised.deviation, random_bytes), plain, scale)


def _draws(count: int, random_bytes: RandomBytes) -> Words:
    return key_stream(random_bytes(_KEY_BYTES), count)
