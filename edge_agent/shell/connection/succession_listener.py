"""Stays subscribed to the topic on which the coordinator names what follows something that this device trusts."""

import asyncio
from collections.abc import Callable

from edge_agent.shell.connection.link import Link


class SuccessionListener:
    """`topic` says where to listen now; it changes with each thing that is followed."""

    def __init__(self, link: Link, topic: Callable[[], str]) -> None:
        self._link = link
        self._topic = topic
        self._heard = asyncio.Event()
        self._pause_seconds = 0.0

    def again(self, pause_seconds: float = 0.0) -> None:
        """Subscribe anew after so long: another topic counts now, or what came could not be used."""
        self._pause_seconds = pause_seconds
        self._heard.set()

    async def keep(self) -> None:
        """Listen, for as long as a connection lasts.

        Raises:
            LinkDownError: it has ended.
        """
        while True:
            topic = self._topic()
            self._heard.clear()
            self._pause_seconds = 0.0
            await self._link.subscribe(topic)
            await self._heard.wait()
            await self._link.unsubscribe(topic)
            await asyncio.sleep(self._pause_seconds)
