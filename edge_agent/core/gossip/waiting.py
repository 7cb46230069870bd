"""What neighbours have told since the last round: it waits in memory until the training worker takes it. Pure.

For each neighbour no more waits than the bytes of one whole copy: whoever tells more is asked for that instead.
"""

from collections.abc import Mapping

from edge_agent.core.gossip.numbering import Heard, Reached
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import Told


class Waiting:
    """Of the neighbours that `follow` names. `most_bytes` are those of one whole copy."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._reached: dict[str, Reached] = {}
        self._told: dict[str, list[Told]] = {}

    def follow(self, reached: Mapping[str, Reached]) -> list[str]:
        """What is known of each neighbour now: at a start, behind a round, with another roster. What waits and is in
        it, or no longer follows, is dropped. Returns those of whom a change is lacking by that.
        """
        waiting, self._reached = self._told, dict(reached)
        self._told = {name: [] for name in reached}
        lacking = []
        for name, each in waiting.items():
            heard = [self._take(name, told) for told in each if name in self._told]
            if Heard.LACKING in heard:
                lacking.append(name)
        return lacking

    def reached(self, name: str) -> Reached:
        """How far a neighbour is known, with what waits."""
        reached = self._reached[name]
        for told in self._told[name]:
            reached = reached.after(told)
        return reached

    def hear(self, name: str, told: Told) -> Heard:
        """A neighbour has told something.

        Raises:
            ProtocolError: `TOO_LARGE`: more than a whole copy takes.
        """
        if len(told.packed) > self._most_bytes:
            raise ProtocolError(
                Reason.TOO_LARGE, f"{len(told.packed)} bytes; a whole copy has {self._most_bytes} at most"
            )
        return self._take(name, told)

    def take_out(self) -> list[tuple[str, Told]]:
        """All that waits, for a round; it is dropped once that has ended (`follow`)."""
        return [(name, told) for name, each in self._told.items() for told in each]

    @property
    def bytes(self) -> int:
        """Of all that waits."""
        return sum(len(told.packed) for each in self._told.values() for told in each)

    def _take(self, name: str, told: Told) -> Heard:
        heard, waiting = self.reached(name).judge(told), self._told[name]
        if heard is not Heard.TAKEN:
            return heard
        if told.whole and waiting:
            waiting.clear()
            heard = self._reached[name].judge(told)
        elif sum(len(each.packed) for each in waiting) + len(told.packed) > self._most_bytes:
            waiting.clear()
            return Heard.LACKING
        waiting.append(told)
        return heard
