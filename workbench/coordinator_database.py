"""Reading a coordinator's database from the workstation: what it can't tell now is said in words."""

from collections.abc import Iterator
from contextlib import contextmanager

from broker_coordinator.storage.database import JournalUnavailableError
from fleet_protocol.errors import ConfigurationError


@contextmanager
def database_errors_told() -> Iterator[None]:
    """A block in which a database that is damaged, held by another program or gone is a `ConfigurationError`."""
    try:
        yield
    except JournalUnavailableError as error:
        raise ConfigurationError(
            f"the coordinator's database can't be read: {error}; ask again once nothing holds it, or restore a backup"
        ) from error
