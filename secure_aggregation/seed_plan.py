"""Who holds which seed: replicated secret sharing (Ito, Saito, Nishizeki 1987; Cramer, Damgard, Ishai 2005). Pure.

With `helpers` c and `colluding` T, each device draws one seed for every T of the helpers, and gives it to all others.
Any T of them lack one seed, which is theirs alone to lack, so its mask hides the update from them; any T + 1 of them
have all seeds. T = c - 1 is the simple mode: each helper has one seed of its own, and all must answer.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations


@dataclass(frozen=True)
class SeedPlan:
    """Of one cohort. Seeds are numbered in the lexical order of the helpers that lack them."""

    helpers: int
    colluding: int

    @cached_property
    def lacking(self) -> tuple[tuple[int, ...], ...]:
        """Of each seed the helpers that don't get it."""
        return tuple(combinations(range(self.helpers), self.colluding))

    @property
    def seeds(self) -> int:
        """How many each device draws."""
        return len(self.lacking)

    @property
    def answers_needed(self) -> int:
        """Answers of so many helpers, whichever they are, hold the sums of all seeds' masks."""
        return self.colluding + 1

    @property
    def signatures_needed(self) -> int:
        """More than (c + T) / 2, so that any two such groups share more than T helpers: one of them is honest.

        None in the simple mode: no two helpers hold one seed, so what they are shown need not agree
        (docs/secure-aggregation.md has both proofs).
        """
        return 0 if self.colluding == self.helpers - 1 else (self.helpers + self.colluding) // 2 + 1

    def held_by(self, helper: int) -> tuple[int, ...]:
        """Numbers of the seeds that a helper gets, ascending."""
        return tuple(number for number, lacking in enumerate(self.lacking) if helper not in lacking)
