"""Puts a backup's database in the place of a coordinator's, in one transaction."""

from dataclasses import dataclass
from pathlib import Path

from broker_coordinator.storage.copying import alone, copy_rows, delete_rows, tables_with_rows
from broker_coordinator.storage.database import Database, name_of, reading, writing
from broker_coordinator.storage.restores import (
    Noticed,
    begin_generations,
    generations,
    note_restore,
    revoke_again,
    revoked_devices,
)
from fleet_protocol.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Restored:
    """What it came to: rows, whose invitations were withdrawn, and who was revoked again."""

    rows: int
    withdrawn: list[str]
    revoked_again: list[str]


def restore_database(backup: Path, target: Database, made: int, *, replace: bool, moving: bool) -> Restored:
    """Copy everything from the SQLite file `backup`, made at `made` in seconds since 1970. It is brought up to this
    release's schema first. `replace`: what the target holds goes, but whom it had revoked. `moving`: nobody has served
    since the backup, so that devices notice nothing.

    Raises:
        ConfigurationError: a coordinator works on the target, or it is not empty and not to be replaced.
        JournalUnavailableError: a database failed; nothing was changed.
    """
    with (
        alone(backup) as source,
        alone(target) as engine,
        reading(source) as reader,
        writing(engine) as writer,
    ):
        full = tables_with_rows(writer)
        if full and not replace:
            raise ConfigurationError(
                f"database {name_of(target)} has rows in {', '.join(full)}; make a backup of it, and run this again"
                " with --replace: what it holds is lost then, but whom it has revoked stays revoked"
            )
        revoked = revoked_devices(writer)
        replaced = generations(writer)
        delete_rows(writer)
        rows = sum(copy_rows(reader, writer).values())
        if moving:
            return Restored(rows, [], list(revoke_again(writer, revoked)))
        begin_generations(writer, replaced)
        return Restored(rows, note_restore(writer, Noticed.COMMAND, made), list(revoke_again(writer, revoked)))
