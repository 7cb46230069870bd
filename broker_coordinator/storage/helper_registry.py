"""Which devices an operator allows as helpers of split learning (docs/split-learning.md)."""

from sqlalchemy import Connection, Engine, delete, insert, select

from broker_coordinator.storage.change_counters import HELPERS, count_up
from broker_coordinator.storage.database import reading, writing
from broker_coordinator.storage.schema import helpers
from fleet_protocol.errors import ConfigurationError


class HelperRegistry:
    """Allows and denies them, by name. A running coordinator and its relay notice (`change_counters`).

    Every method raises JournalUnavailableError where the database fails.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def allowed(self) -> list[str]:
        """All names, in order."""
        with reading(self._engine) as connection:
            return sorted(allowed_helpers(connection))

    def allow(self, name: str) -> None:
        """Let a device be a helper, once it is approved as a device; nothing changes for one that is."""
        with writing(self._engine) as connection:
            if name not in allowed_helpers(connection):
                connection.execute(insert(helpers).values(name=name))
                count_up(connection, HELPERS)

    def deny(self, name: str) -> None:
        """Let it be a helper no longer; its sessions move to others.

        Raises:
            ConfigurationError: it was not allowed.
        """
        with writing(self._engine) as connection:
            denied = connection.execute(delete(helpers).where(helpers.c.name == name))
            if not denied.rowcount:
                raise ConfigurationError(f"{name!r} is no helper; see: broker-coordinator helpers list")
            count_up(connection, HELPERS)


def allowed_helpers(connection: Connection) -> set[str]:
    """The names, as a transaction sees them."""
    return set(connection.scalars(select(helpers.c.name)))
