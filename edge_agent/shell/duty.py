"""What a member of a fleet is there for, as its membership tells it of all that it hears."""

from typing import Protocol

from edge_agent.core.outbox import OutboxRow
from fleet_protocol.kinds import Receipt, Roster


class Duty(Protocol):
    """What a member is there for, and all that it hears of its fleet."""

    def manifest_changed(self, task: str) -> None:
        """A manifest has brought something new."""

    def manifest_heard(self, task: str) -> None:
        """The newest known version was named by a manifest that this release reads."""

    def not_readable(self, task: str, why: str) -> None:
        """The task's bundle or manifest is of a format that this release does not read."""

    def invited(self, task: str) -> None:
        """A round of the task asks for the version that is held."""

    def enrolled(self) -> None:
        """The coordinator accepts this member."""

    def not_enrolled(self, why: str) -> None:
        """It does not, or not yet."""

    def retry_deferred_trigger(self) -> None:
        """The coordinator has answered something, which may change what it takes."""

    def answered(self, row: OutboxRow, receipt: Receipt) -> None:
        """A payload has its receipt."""

    def waits_for_version(self, task: str) -> bool:
        """Whether this member has to hear of every version of a task now."""


class Sessions(Protocol):
    """What a member says in sessions of split learning."""

    def relayed(self, data: bytes) -> None:
        """Something has come from the relay."""

    def connected(self) -> None:
        """The connection to the broker is there, with the subscriptions of those who listen."""

    def key_changed(self) -> None:
        """The coordinator has another key, and with it the relay."""

    def moved(self) -> None:
        """This member speaks and hears under another shard, from the next connection on."""


class AmongNeighbours(Protocol):
    """What a member hears of others that learn a task with it without a coordinator, and says to them."""

    def take_roster(self, task: str, roster: Roster) -> None:
        """A verified roster has come."""

    def hear(self, topic: str, data: bytes) -> None:
        """Something was published where a neighbour speaks."""

    def look_again(self) -> None:
        """There is a manifest that may be new, or the coordinator accepts this member."""

    async def keep(self) -> None:
        """Hear and speak for as long as a connection lasts."""


class Alone:
    """Of a member that has no part in such a task."""

    def take_roster(self, task: str, roster: Roster) -> None:
        """See `AmongNeighbours`."""

    def hear(self, topic: str, data: bytes) -> None:
        """See `AmongNeighbours`."""

    def look_again(self) -> None:
        """See `AmongNeighbours`."""

    async def keep(self) -> None:
        """See `AmongNeighbours`."""
