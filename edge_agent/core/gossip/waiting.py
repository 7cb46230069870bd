"""What neighbours have told since the last round: it waits in memory until the training worker takes it. Pure.

For each neighbour no more waits than the bytes of one whole copy. Of whoever tells more, what came first waits on, and
the whole copy is asked for behind the next round: a device that makes no rounds asks for nothing again and again.
"""

from collections.abc import Mapping

from edge_agent.core.gossip.numbering import Heard, Reached
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import Told


class _OfNeighbour:
    """What waits of one: behind what is `known`, of which the first `handed` are in a round."""

    __slots__ = ("handed", "is_full", "known", "told")

    def __init__(self, known: Reached) -> None:
        self.known = known
        self.told: list[Told] = []
        self.handed = 0
        self.is_full = False

    def reached(self, count: int | None = None) -> Reached:
        """How far the neighbour is known, with the first so many, or with all."""
        reached = self.known
        for told in self.told[:count]:
            reached = reached.after(told)
        return reached

    @property
    def bytes(self) -> int:
        """Of all of it."""
        return sum(len(told.packed) for told in self.told)


class Waiting:
    """Of the neighbours that `follow` names. `most_bytes` are those of one whole copy."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._of: dict[str, _OfNeighbour] = {}

    def follow(self, known: Mapping[str, Reached]) -> None:
        """Those are the neighbours, known so far: at a start, or with another roster. Of those that stay, what waits
        and follows waits on.
        """
        before, self._of = self._of, {name: _OfNeighbour(reached) for name, reached in known.items()}
        for name in before.keys() & known.keys():
            for told in before[name].told:
                self._take(self._of[name], told)

    def round_ended(self, known: Mapping[str, Reached]) -> list[str]:
        """A round has taken what was handed to it, and its neighbours are known so far. Returns those of whom something
        is lacking: the round could not take it, there was no room for it, or it does not follow.
        """
        lacking = []
        for name, of in self._of.items():
            expected, came_meanwhile = of.reached(of.handed), of.told[of.handed :]
            now = known.get(name, Reached())
            is_lacking = of.is_full or (of.handed > 0 and (now.life, now.number) != (expected.life, expected.number))
            self._of[name] = after = _OfNeighbour(now)
            heard = [self._take(after, told) for told in came_meanwhile]
            if Heard.LACKING in heard or (is_lacking and not any(told.whole for told in after.told)):
                lacking.append(name)
        return lacking

    def reached(self, name: str) -> Reached:
        """How far a neighbour is known, with what waits."""
        return self._of[name].reached()

    def hear(self, name: str, told: Told) -> Heard:
        """A neighbour has told something.

        Raises:
            ProtocolError: `TOO_LARGE`: more than a whole copy takes.
        """
        if len(told.packed) > self._most_bytes:
            raise ProtocolError(
                Reason.TOO_LARGE, f"{len(told.packed)} bytes; a whole copy has {self._most_bytes} at most"
            )
        return self._take(self._of[name], told)

    def take_out(self) -> list[tuple[str, Told]]:
        """All that waits, for a round; it is dropped once that has ended."""
        for of in self._of.values():
            of.handed = len(of.told)
        return [(name, told) for name, of in self._of.items() for told in of.told]

    @property
    def bytes(self) -> int:
        """Of all that waits."""
        return sum(of.bytes for of in self._of.values())

    def _take(self, of: _OfNeighbour, told: Told) -> Heard:
        heard = of.reached().judge(told)
        if heard is Heard.REPEATED:
            return heard
        if told.whole:
            of.told, of.handed, of.is_full = [told], 0, False
            return heard
        if of.is_full:
            return Heard.DROPPED
        if heard is Heard.TAKEN and of.bytes + len(told.packed) > self._most_bytes:
            of.is_full = True
            return Heard.DROPPED
        if heard is Heard.TAKEN:
            of.told.append(told)
        return heard
