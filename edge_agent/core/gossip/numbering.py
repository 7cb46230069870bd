"""Which of a neighbour's changes follow which: what is taken, was there before, or lacks one before it. Pure."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from fleet_protocol.kinds import Told

MOST_LIVES: Final = 8
"""Former ones that are known of a neighbour: what was told in them is not taken again."""


class Heard(Enum):
    """What became of it."""

    TAKEN = auto()
    REPEATED = auto()
    """It is in the copy already: nothing is mixed twice."""
    LACKING = auto()
    """One before it is lacking: the whole copy is to be asked for."""
    DROPPED = auto()
    """There is no room for it until the next round: the whole copy is to be asked for then."""


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a device is known: the copy behind change `number` of its `life`. Before the first, both are 0. `former`
    are lives that it had before this one.
    """

    life: int = 0
    number: int = 0
    former: tuple[int, ...] = ()

    def judge(self, told: Told) -> Heard:
        """What is to become of what has come."""
        if told.life in self.former:
            return Heard.REPEATED
        number = self.number if told.life == self.life else 0
        if told.number <= number:
            return Heard.REPEATED
        return Heard.TAKEN if told.whole or told.number == number + 1 else Heard.LACKING

    def begins_anew(self, told: Told) -> bool:
        """Whether it is of another life, in which the copy began with the task's own weights."""
        return told.life != self.life

    def after(self, told: Told) -> "Reached":
        """Once that is taken."""
        former = (*self.former, self.life)[-MOST_LIVES:] if self.begins_anew(told) else self.former
        return Reached(told.life, told.number, former)
