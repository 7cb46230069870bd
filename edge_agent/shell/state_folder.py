"""Opens what an agent keeps in its state folder; on a full card, what can be fetched again makes room."""

import logging
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from edge_agent.configuration import AgentConfiguration
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.shell.storage.blob_cache import BlobCache
from edge_agent.shell.storage.damaged_files import files_set_aside, why_unusable
from edge_agent.shell.storage.device_database import DeviceDatabase
from fleet_host.disk_room import is_disk_full
from fleet_host.log_lines import log_line
from fleet_protocol.analytics.fields import RECEIVED_AT
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MIB

logger = logging.getLogger(__name__)

LARGEST_FIRST_BOOT = 2**20
"""Leaves room for 2**42 more boots in the numbers of control messages."""

State = tuple[DeviceDatabase, SampleStore, BlobCache]
Opened = TypeVar("Opened")


def open_state(configuration: AgentConfiguration) -> State:
    """Open the databases and the folder of blobs, which are made where they are missing.

    Raises:
        ConfigurationError: the folder or a database can't be used; why, and what to do.
    """
    return _with_room(configuration, _open)


def open_state_without_samples(configuration: AgentConfiguration) -> tuple[DeviceDatabase, BlobCache]:
    """The same of a member that has no samples: a helper.

    Raises:
        ConfigurationError: as `open_state`.
    """
    return _with_room(configuration, _open_without_samples)


def _with_room(configuration: AgentConfiguration, open_all: Callable[[AgentConfiguration], Opened]) -> Opened:
    expendable = _expendable(configuration.state_folder)
    while True:
        try:
            return open_all(configuration)
        except ConfigurationError as error:
            is_full = error.__cause__ is not None and is_disk_full(error.__cause__, configuration.state_folder)
            if not (is_full and _make_room(expendable)):
                raise


def sample_file(configuration: AgentConfiguration) -> Path:
    """Where samples are."""
    return configuration.state_folder / "samples.db"


def open_samples(configuration: AgentConfiguration) -> SampleStore:
    """The sample store, with its limits.

    Raises:
        OSError, sqlite3.Error: it can't be used.
    """
    store = configuration.store
    return SampleStore(
        sample_file(configuration),
        store.maximum_samples,
        store.maximum_mib * MIB,
        store.retention,
        notes_arrivals=any(each.field == RECEIVED_AT for each in configuration.analytics.fields),
    )


def _make_room(expendable: Iterator[Path]) -> bool:
    """Delete the next file that can be deleted, and say so; False where none is left."""
    for file in expendable:
        try:
            size = file.stat().st_size
            file.unlink()
        except OSError:  # a card that can't be written any more: what could not be opened says so
            continue
        remedy = "the disk is full: make room; what is deleted here is fetched again where it is needed"
        logger.warning(log_line("room_made", file=file.name, bytes=size, remedy=remedy))
        return True
    return False


def _open(configuration: AgentConfiguration) -> State:
    folder = configuration.state_folder
    file = folder
    database: DeviceDatabase | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        database = DeviceDatabase(
            folder / "agent.db", _draw_first_boot(folder), configuration.guards.maximum_waiting_mib * MIB
        )
        file = folder / "agent.db"
        seen = max(database.trained_through(task.name) for task in configuration.tasks)
        file = sample_file(configuration)
        samples = open_samples(configuration)
        samples.continue_after(seen)
        file = folder / "blobs"
        return database, samples, BlobCache(file)
    except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
        if database is not None:
            database.close()
        raise ConfigurationError(why_unusable(error, file)) from error


def _open_without_samples(configuration: AgentConfiguration) -> tuple[DeviceDatabase, BlobCache]:
    folder = configuration.state_folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        most_bytes = configuration.guards.maximum_waiting_mib * MIB
        database = DeviceDatabase(folder / "agent.db", _draw_first_boot(folder), most_bytes)
        return database, BlobCache(folder / "blobs")
    except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
        raise ConfigurationError(why_unusable(error, folder / "agent.db")) from error


def _expendable(folder: Path) -> Iterator[Path]:
    """Files that cost at most their fetching, cheapest first: a damaged store, unfinished ones, the oldest blobs."""
    yield from files_set_aside(folder / "samples.db")
    blobs = [file for file in (folder / "blobs").glob("*") if file.is_file()]
    yield from sorted(blobs, key=lambda file: (file.suffix != ".part", file.stat().st_mtime))


def _draw_first_boot(folder: Path) -> int:
    return 1 if (folder / "agent.db").exists() else 1 + secrets.randbelow(LARGEST_FIRST_BOOT)
