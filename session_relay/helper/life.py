"""What every helper runs for as long as it lives, whatever it is there for: one life cycle."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from edge_agent.shell.membership import Membership
from edge_agent.shell.signs_of_life import SignsOfLife
from fleet_host.service_manager import this_service_manager
from fleet_protocol.errors import ConfigurationError
from session_relay.helper.status import StatusSocket


class Serves(Protocol):
    """What the helper is there for."""

    async def run(self) -> None:
        """Do it until cancelled."""
        ...


async def live(member: Membership, serving: Serves, socket: StatusSocket, words: Callable[[], str]) -> None:
    """Keep the link, serve, answer at the socket, and let the service manager know, with `words`; until cancelled. The
    member's database is closed then.

    Raises:
        ConfigurationError: the disk has damaged `agent.db` meanwhile; what is lost, and what to do.
    """
    signs = SignsOfLife(this_service_manager(), round_ends_by=lambda: None, words=lambda: member.status_line(words()))
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(socket.serve())
            group.create_task(member.link.run())
            group.create_task(serving.run())
            group.create_task(signs.run(socket.listens))
            group.create_task(member.end_at_damage())
    except Exception:
        if member.database.damage is None:
            raise
        raise ConfigurationError(member.database.damage) from None
    finally:
        member.database.close()
