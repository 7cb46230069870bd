"""Tells devices what follows each of this coordinator's keys, and each set of the broker's authorities.

A device hears what follows the key that it pins, pins that, and asks for what follows it in turn: so one that slept
through several still gets to the newest. Pure: times are seconds on any one clock.
"""

from collections.abc import Sequence
from itertools import pairwise

from broker_coordinator.distribution.signed_messages import MessageSigner, Publication
from broker_coordinator.serving.announcements import Announcements
from fleet_protocol.authorities import authorities_id
from fleet_protocol.keys import SigningKey


class Successions:
    """Retained messages: for each but the first of the `keys`, which are newest first, one that the key signs; and for
    each but the last of the sets of `authorities`, which are oldest first and in DER, one that the newest key signs.
    """

    def __init__(
        self, keys: Sequence[SigningKey], fleet: str, shard: str, authorities: Sequence[Sequence[bytes]] = ()
    ) -> None:
        messages = [
            MessageSigner(followed, fleet, shard).succession(successor.verify_key)
            for successor, followed in pairwise(keys)
        ]
        if keys:
            newest = MessageSigner(keys[0], fleet, shard)
            messages += [newest.authorities(authorities_id(before), now) for before, now in pairwise(authorities)]
        self._messages: dict[str, Publication] = {message.topic: message for message in messages}
        self._announcements = Announcements()

    def announce(self) -> None:
        """Publish them next: the broker may have lost them."""
        for topic in self._messages:
            self._announcements.announce(topic)

    def repeat(self, now: float) -> None:
        """Publish them again, soon, for a device that has just come."""
        self._announcements.repeat(self._messages, now)

    def publications(self, limit: int, now: float) -> list[Publication]:
        """Take at most `limit` of those that are to be published now."""
        taken: list[Publication] = []
        while len(taken) < limit and (topic := self._announcements.next_name(now)) is not None:
            taken.append(self._messages[topic])
            self._announcements.done(topic, now)
        return taken

    def next_due(self) -> float | None:
        """When one is to be published again, or None."""
        return self._announcements.next_due()
