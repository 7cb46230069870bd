"""Opens what an agent keeps in its state folder."""

import secrets
import sqlite3
from pathlib import Path

from edge_agent.configuration import AgentConfiguration
from edge_agent.shell.blob_cache import BlobCache
from edge_agent.shell.damaged_files import why_unusable
from edge_agent.shell.device_database import DeviceDatabase
from edge_agent.shell.sample_store import SampleStore
from fleet_protocol.errors import ConfigurationError

LARGEST_FIRST_BOOT = 2**20
"""Leaves room for 2**42 more boots in the numbers of control messages."""


def open_state(configuration: AgentConfiguration) -> tuple[DeviceDatabase, SampleStore, BlobCache]:
    """Open the databases and the folder of blobs, which are made where they are missing.

    Raises:
        ConfigurationError: the folder or a database can't be used; why, and what to do.
    """
    folder = configuration.state_folder
    file = folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "agent.db"
        database = DeviceDatabase(file, first_boot=_draw_first_boot(folder))
        seen = [database.trained_through(task.name) for task in configuration.tasks]
        file = folder / "samples.db"
        samples = SampleStore(file, configuration.store.maximum_samples)
        samples.continue_after(max(seen))
        file = folder / "blobs"
        return database, samples, BlobCache(file)
    except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
        raise ConfigurationError(why_unusable(error, file)) from error


def _draw_first_boot(folder: Path) -> int:
    return 1 if (folder / "agent.db").exists() else 1 + secrets.randbelow(LARGEST_FIRST_BOOT)
