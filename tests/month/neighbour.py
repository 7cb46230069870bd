"""A hostile neighbour: it hears all that is said, says it again at any time, and says things of its own."""

import random

from fleet_protocol import topics
from fleet_protocol.keys import SigningKey
from tests.month.network import Network
from tests.support.device import SigningDevice
from tests.support.fleet import FLEET, SHARD

MOST_AT_ONCE = 12


class Neighbour:
    """`victims` are names of devices."""

    def __init__(self, network: Network, victims: list[str], draw: random.Random) -> None:
        self._network = network
        self._victims = victims
        self._draw = draw
        self._number = 0

    def act(self) -> None:
        """Do some of what it can."""
        for _ in range(self._draw.randint(1, MOST_AT_ONCE)):
            self._draw.choice((self._say_again, self._say_again, self._forge, self._babble))()

    def _say_again(self) -> None:
        """Any message, on its topic or on another device's."""
        if not self._network.overheard:
            return
        topic, data = self._draw.choice(self._network.overheard)
        if self._draw.random() < 0.2:
            topic, _ = self._draw.choice(self._network.overheard)
        self._network.publish(topic, data)

    def _forge(self) -> None:
        """An update in the name of a victim, signed with another key."""
        self._number += 1
        forger = SigningDevice(self._draw.choice(self._victims), SigningKey(bytes(32)))
        self._network.publish(forger.up, forger.update(self._number))

    def _babble(self) -> None:
        """Bytes, anywhere."""
        name = self._draw.choice(self._victims)
        places = (topics.up, topics.down, topics.state)
        self._network.publish(self._draw.choice(places)(FLEET, SHARD, name), self._draw.randbytes(40))
