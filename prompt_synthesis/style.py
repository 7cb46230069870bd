"""A style: words of a device's owner, some of which say a number or a name, as `pitch=low noise=20`. Pure.

A stranger wrote it: names are looked up in tables, numbers are cut to their limits, and the rest is not looked at.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np


class Style:
    """The words of a style."""

    def __init__(self, words: str) -> None:
        pairs = (word.partition("=") for word in words.split())
        self._values: Mapping[str, str] = {name: value for name, sign, value in pairs if sign}

    def name(self, key: str, known: Sequence[str]) -> str | None:
        """The one of the `known` names that the style gives; None for none of them."""
        value = self._values.get(key)
        return value if value in known else None

    def number(self, key: str, least: float, most: float, named: Mapping[str, float] | None = None) -> float | None:
        """The number that the style gives, as figures or by one of its names; None for none."""
        value = self._values.get(key, "")
        if named and value in named:
            return named[value]
        try:
            found = float(value)
        except ValueError:
            return None
        return min(max(found, least), most) if math.isfinite(found) else None

    def around(
        self,
        key: str,
        limits: tuple[float, float],
        spread: float,
        generator: np.random.Generator,
        named: Mapping[str, float] | None = None,
    ) -> float:
        """A number for one sample: near that of the style, or anywhere within the `limits` where it gives none."""
        middle = self.number(key, *limits, named)
        if middle is None:
            return float(generator.uniform(*limits))
        return float(np.clip(generator.normal(middle, spread), *limits))
