"""A device's requests that have no answer yet: when each was sent, is sent again, and how long it has waited. Pure."""

import math
from dataclasses import dataclass

from fleet_protocol.limits import MAX_REQUESTS_IN_FLIGHT
from fleet_protocol.sessions.channel import Channel, Sealed
from fleet_protocol.sessions.round_trip import RoundTrip


@dataclass(slots=True)
class _Request:
    """`sent_at` is when its last chunk was sent, None while it waits for credit; `since` when it first could have been,
    None until it is seen.
    """

    message: Sealed
    since: float | None = None
    sent_at: float | None = None
    repeats: int = 0


class WaitingRequests:
    """Of one session, by their numbers from 1. `round_trip` is told how long answers take."""

    def __init__(self, round_trip: RoundTrip) -> None:
        self._round_trip = round_trip
        self._requests: dict[int, _Request] = {}
        self._last_number = 0

    def __len__(self) -> int:
        """How many there are."""
        return len(self._requests)

    def __contains__(self, number: object) -> bool:
        """Whether the request of this number waits."""
        return number in self._requests

    @property
    def has_room(self) -> bool:
        """Whether another may be sent now."""
        return self._last_number < self.settled + MAX_REQUESTS_IN_FLIGHT

    @property
    def next_number(self) -> int:
        """Of the request that is sent next."""
        return self._last_number + 1

    @property
    def settled(self) -> int:
        """Up to which number all are answered."""
        return min(self._requests, default=self.next_number) - 1

    @property
    def since(self) -> float:
        """Since when the one waits that has waited longest, for credit or its answer; infinite where none waits."""
        return min((each.since for each in self._requests.values() if each.since is not None), default=math.inf)

    @property
    def repeat_at(self) -> float:
        """When one is due to be sent again."""
        sent = (each.sent_at for each in self._requests.values() if each.sent_at is not None)
        return min(sent, default=math.inf) + self._round_trip.timeout

    def send(self, message: Sealed, channel: Channel) -> None:
        """Send the next one."""
        self._last_number = message.number
        self._requests[message.number] = _Request(message)
        channel.send(message)

    def note_sent(self, channel: Channel, now: float) -> None:
        """Note those of which the channel has sent everything, and that all of them wait."""
        for request in self._requests.values():
            request.since = now if request.since is None else request.since
            if request.sent_at is None and not channel.holds(request.message.number):
                request.sent_at = now

    def answered(self, number: int, channel: Channel, now: float) -> None:
        """The answer is here: nothing of the request is sent any more."""
        request = self._requests.pop(number)
        if request.sent_at is not None and not request.repeats:
            self._round_trip.measured(now - request.sent_at)
        channel.forget(number)
        channel.settled = self.settled

    def repeat_overdue(self, channel: Channel, now: float) -> None:
        """Send again what has waited for the time-out."""
        sent_by = now - self._round_trip.timeout
        overdue = [each for each in self._requests.values() if each.sent_at is not None and each.sent_at <= sent_by]
        if overdue and overdue[0].message.number == min(self._requests):
            self._round_trip.timed_out()  # once for all that were lost together, not for each
        for request in overdue:
            _repeat(request, channel)

    def repeat_all(self, channel: Channel) -> None:
        """Send all of them again: nobody knows which of them have come. Their answers are waited for from now on."""
        for request in self._requests.values():
            _repeat(request, channel)
            request.since = None


def _repeat(request: _Request, channel: Channel) -> None:
    if request.sent_at is not None:
        request.sent_at = None
        request.repeats += 1
        channel.send(request.message)
