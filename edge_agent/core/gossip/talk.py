"""One device's talk with its neighbours about one task: what of theirs is taken, and when it tells, asks and answers.

Pure: times are seconds on any clock that only grows. What the numbers mean is the training worker's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from edge_agent.core.gossip.numbering import Heard, Reached
from edge_agent.core.gossip.state import PeerHead
from edge_agent.core.gossip.waiting import Waiting
from fleet_host.rate_limit import TokenBucket
from fleet_protocol.kinds import CopyRequest, Told

ASK_SECONDS: Final = 60.0
"""A neighbour is asked for its whole copy once in this time at most, and once in twice as much each time that it was
asked without a round between: a device that makes none asks ever less."""
LONGEST_ASK_SECONDS: Final = 86_400.0
COLLECT_SECONDS: Final = 1.0
"""So long a request waits for others: one answer is heard by all neighbours."""
ANSWERS: Final = TokenBucket(interval_seconds=900.0, burst=4)
"""A device that told while its neighbours slept is asked by each of them; nobody gets more out of it. An answer is the
whole copy, or the last change where all who ask lack that alone."""


@dataclass(frozen=True, slots=True)
class OwnStanding:
    """What the device's last round has left, as far as its talk needs it. `neighbours` are those that it knows a copy
    of; `distances` are of its model from them.
    """

    life: int = 0
    number: int = 0
    rounds: int = 0
    neighbours: Mapping[str, Reached] = field(default_factory=dict)
    at_rounds: Mapping[str, int] = field(default_factory=dict)
    distances: Mapping[str, float] = field(default_factory=dict)

    @staticmethod
    def of(state: PeerHead | None) -> "OwnStanding":
        """That of a state; where there is none, the device has told nothing and knows nobody."""
        if state is None:
            return OwnStanding()
        copies = state.copies.items()
        return OwnStanding(
            state.life,
            state.number,
            state.rounds,
            {name: copy.reached for name, copy in copies},
            {name: copy.at_round for name, copy in copies},
            {name: copy.distance for name, copy in copies},
        )


@dataclass(frozen=True, slots=True)
class ToSay:
    """What is to be published now: the last change, the whole copy, requests."""

    change: bool = False
    whole: bool = False
    requests: tuple[CopyRequest, ...] = ()


class Talk:
    """`most_bytes` are those of a whole copy. It begins without neighbours."""

    def __init__(self, device: str, most_bytes: int) -> None:
        self.own = OwnStanding()
        self.was_put_back = False
        """A neighbour knows a later change of this life: the next round begins another one."""
        self._device = device
        self._waiting = Waiting(most_bytes)
        self._neighbours: list[str] = []
        self._asked_at: dict[str, float] = {}
        self._ask_seconds: dict[str, float] = {}
        self._asks: set[str] = set()
        self._tells = False
        self._answers_at: float | None = None
        self._answers_whole = False
        self._is_on = False
        self._greets: set[str] = set()
        self._full_at = 0.0
        self._heard_at: dict[str, float] = {}
        self._believes = True

    @property
    def neighbours(self) -> list[str]:
        """By name, in the order of their places."""
        return self._neighbours

    def meet(self, neighbours: list[str]) -> None:
        """A roster has given it these neighbours. What is known of those that stay is kept. New ones are asked for
        their copies and told the last change: one of both has this roster first, and does not hear the other.
        """
        if self._is_on and (new := set(neighbours) - set(self._neighbours)):
            self._greets |= new
            self._tells = self.own.number > 0
        self._neighbours = neighbours
        self._asks &= set(neighbours)
        for times in (self._asked_at, self._ask_seconds, self._heard_at):
            for name in times.keys() - set(neighbours):
                del times[name]
        self._follow()

    def stand(self, own: OwnStanding) -> None:
        """The state that is stored: at a start, or with another bundle."""
        self.own = own
        self._follow()

    def connected(self) -> None:
        """What was told last is told again, as whoever was away may have missed it; and neighbours are asked for what
        this device may have missed. Where a broker comes back, one of two is there first.
        """
        self._is_on = True
        self._greets.update(self._neighbours)
        self._tells = self.own.number > 0

    def round_ended(self, own: OwnStanding, *, told: bool, now: float) -> None:
        """A round has left `own`, in which it has `told` something or not."""
        if own.life != self.own.life:
            self.was_put_back = False
        self.own = own
        self._tells = self._tells or told
        self._answers_whole = self._answers_whole or told  # the last change is another one than was asked for
        self._ask_seconds.clear()
        for name in self._waiting.round_ended(own.neighbours):
            self._ask(name, now)

    def take_out(self) -> list[tuple[str, Told]]:
        """What waits, for a round."""
        return self._waiting.take_out()

    def hear(self, name: str, told: Told, now: float) -> Heard:
        """A neighbour has told something.

        Raises:
            ProtocolError: more than any copy takes.
        """
        before = self._waiting.reached(name)
        heard = self._waiting.hear(name, told)
        is_put_back = heard is Heard.REPEATED and told.life == before.life and told.number < before.number
        if heard is Heard.LACKING or is_put_back:  # in the latter case the request says what is known of it
            self._ask(name, now)
        if heard is Heard.TAKEN:
            self._heard_at[name] = now
            self._asks.discard(name)
        return heard

    def asked(self, request: CopyRequest, now: float) -> bool:
        """A neighbour asks for a copy; whether it says that this device's state was put back. That is believed once: a
        state is put back while no agent runs.
        """
        own = self.own
        if request.asked != self._device or not own.number:
            return False
        if request.life == own.life and request.number > own.number:
            is_new, self._believes = self._believes, False
            self.was_put_back = self.was_put_back or is_new
            return is_new
        if (request.life, request.number) != (own.life, own.number):
            if self._answers_at is None:
                empty_until = self._full_at - (ANSWERS.burst - 1) * ANSWERS.interval_seconds
                self._answers_at, self._answers_whole = max(now + COLLECT_SECONDS, empty_until), False
            lacks_the_last_alone = own.number == 1 or (request.life, request.number) == (own.life, own.number - 1)
            self._answers_whole = self._answers_whole or not lacks_the_last_alone
        return False

    def to_say(self, now: float) -> ToSay:
        """What is due; it is taken for said."""
        requests = tuple(self._request(name) for name in self._neighbours if name in self._asks | self._greets)
        self._asks.clear()
        self._greets.clear()
        answers = self._answers_at is not None and self._answers_at <= now
        whole = answers and self._answers_whole
        if answers:
            self._answers_at = None
            self._full_at = max(self._full_at, now) + ANSWERS.interval_seconds
        change, self._tells = (self._tells or answers) and not whole, False
        return ToSay(change, whole, requests)

    @property
    def next_due(self) -> float | None:
        """When something is due that is not yet; None: nothing is."""
        return self._answers_at

    def heard_at(self, name: str) -> float | None:
        """When a neighbour's last change came; None: none since the start."""
        return self._heard_at.get(name)

    def _follow(self) -> None:
        known = self.own.neighbours
        self._waiting.follow({name: known.get(name, Reached()) for name in self._neighbours})

    def _ask(self, name: str, now: float) -> None:
        seconds = self._ask_seconds.get(name, ASK_SECONDS)
        if name in self._asked_at and now - self._asked_at[name] < seconds:
            return
        self._ask_seconds[name] = min(2 * seconds, LONGEST_ASK_SECONDS) if name in self._asked_at else ASK_SECONDS
        self._asked_at[name] = now
        self._asks.add(name)

    def _request(self, name: str) -> CopyRequest:
        reached = self._waiting.reached(name)
        return CopyRequest(name, reached.life, reached.number)
