"""`broker-coordinator backup | restore`: all that a coordinator can't make anew, in one file."""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from broker_coordinator.commands.authority_sets import earlier_files
from broker_coordinator.commands.backup_file import (
    DATABASE,
    FORMAT,
    MAX_SMALL_BYTES,
    MAX_SMALL_FILES,
    BackupContents,
    is_member,
    opened_backup,
    write_backup,
)
from broker_coordinator.commands.places import ServerPlaces, server_places
from broker_coordinator.commands.put_back import put_back, require_inside
from broker_coordinator.configuration import PROGRAM, CoordinatorConfiguration, load_configuration
from broker_coordinator.storage.copying import copy_rows, require_database
from broker_coordinator.storage.database import Database, name_of, open_database, reading, writing
from broker_coordinator.storage.restoring import Restored, restore_database
from fleet_host.command_line import DISTRIBUTION, Verbs, add_verb
from fleet_host.new_files import remedy_for
from fleet_host.program_folder import FOLDER_MODE, give_to
from fleet_protocol.errors import ConfigurationError

TIME = "%Y-%m-%d %H:%M"


def add_parser(verbs: Verbs, *parents: argparse.ArgumentParser) -> None:
    """Both verbs."""
    backup = add_verb(
        verbs, "backup", "Write database, key, configuration and authority into one file, while it runs.", *parents
    )
    backup.add_argument("file", type=Path, metavar="FILE", help="the file to write; it holds private keys")
    restore = add_verb(verbs, "restore", "Put back what a backup holds; the coordinator must not run.", *parents)
    restore.add_argument("file", type=Path, metavar="FILE", help="what `backup` wrote")
    restore.add_argument(
        "--replace", action="store_true", help="let go of what the database holds now, but whom it has revoked"
    )
    restore.add_argument(
        "--moving", action="store_true", help="the coordinator was stopped before the backup, and has not run since"
    )
    for verb in (backup, restore):
        verb.add_argument("--folder", type=Path, metavar="DIR", help="the one folder that `setup --folder` has filled")


def back_up(options: argparse.Namespace) -> None:
    """Write the file.

    Raises:
        ConfigurationError: something can't be read, or the file can't be written.
    """
    places = server_places(options.config, options.folder)
    configuration = load_configuration(places.configuration)
    contents = BackupContents(FORMAT, int(time.time()), version(DISTRIBUTION), configuration.fleet, {})
    source = configuration.journal()
    require_database(source)
    target: Path = options.file
    if target.exists():
        raise ConfigurationError(f"{target} exists; a backup is never overwritten: name another file")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.absolute().parent) as folder:
            copied = Path(folder) / DATABASE
            engines = open_database(source, read_only=True), open_database(copied)
            with reading(engines[0]) as reader, writing(engines[1]) as writer:
                copy_rows(reader, writer)
            for engine in engines:
                engine.dispose()
            files, left_out = _small_files(places, configuration)  # after the database: keys are only added
            write_backup(target, contents, files, copied)
    except OSError as error:
        remedy = remedy_for(error, "name a file in a folder that can be written")
        raise ConfigurationError(f"{error.filename or target}: {error.strerror}; {remedy}") from error
    for path in left_out:
        sys.stdout.write(f"not in it: {path}; keep a copy\n")
    sys.stdout.write(f"wrote {target}, {target.stat().st_size} bytes: keep it as safe as the keys that are in it\n")


def _small_files(places: ServerPlaces, configuration: CoordinatorConfiguration) -> tuple[dict[str, bytes], list[Path]]:
    """By the name in the backup; and those that it has no place for."""
    folder = places.configuration.parent
    named = [places.configuration, *_named_files(configuration)]
    inside = [path for path in named if path.parent.resolve() == folder.resolve()]
    found = {f"configuration/{path.name}": path for path in inside}
    for name, each in (("authority", places.authority), ("authority/next", places.next_authority)):
        if each.is_dir():
            found |= {f"{name}/{path.name}": path for path in sorted(each.iterdir()) if path.is_file()}
    kept = {name: path for name, path in found.items() if is_member(name)}
    if len(kept) > MAX_SMALL_FILES:
        raise ConfigurationError(
            f"{len(kept)} files belong into a backup, at most {MAX_SMALL_FILES} are taken; move certificates of devices"
            f" out of {places.authority}, and keep a copy of them"
        )
    left_out = {*named, *found.values(), *(each.file for each in configuration.evaluations)} - set(kept.values())
    return {name: _content(path) for name, path in kept.items()}, sorted(left_out)


def _named_files(configuration: CoordinatorConfiguration) -> Iterator[Path]:
    broker = configuration.broker
    tls: tuple[Path | None, ...] = ()
    if broker.tls is not None:
        tls = (broker.tls.authority, *earlier_files(broker.tls.authority), broker.tls.certificate, broker.tls.key)
    for path in (configuration.key_file, configuration.database_password_file, broker.password_file, *tls):
        if path is not None:
            yield path


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if len(content) > MAX_SMALL_BYTES:
        raise ConfigurationError(
            f"{path}: {len(content)} bytes, at most {MAX_SMALL_BYTES} belong into a backup; move it elsewhere"
        )
    return content


def restore(options: argparse.Namespace) -> None:
    """Put files back that are missing, then the database.

    Raises:
        ConfigurationError: it can't be done, or would mix two coordinators.
    """
    places = server_places(options.config, options.folder)
    try:
        with opened_backup(options.file) as backup:
            files = backup.files()
            backup.check_database()
            if options.folder is not None:
                require_inside(files, places, options.folder)
            for words in put_back(files, places, backup.contents.fleet):
                sys.stdout.write(words + "\n")
            database = load_configuration(places.configuration).journal()
            near = database.parent if isinstance(database, Path) else None
            if near is not None and not near.is_dir():
                near.mkdir(mode=FOLDER_MODE, parents=True)
                give_to(PROGRAM, near)
            with tempfile.TemporaryDirectory(prefix=".restore.", dir=near) as folder:
                copy = Path(folder) / DATABASE
                backup.extract_database(copy)
                made = backup.contents.made
                done = restore_database(copy, database, made, replace=options.replace, moving=options.moving)
    except BrokenPipeError:  # of the output, which is read no further
        raise
    except OSError as error:
        remedy = remedy_for(error, "run it with sudo" if isinstance(error, PermissionError) else "check the disk")
        raise ConfigurationError(f"{error.filename or options.file}: {error.strerror}; {remedy}") from error
    sys.stdout.writelines(line + "\n" for line in _summary(done, database, made, moving=options.moving))


def _summary(done: Restored, database: Database, made: int, *, moving: bool) -> Iterator[str]:
    yield f"database {name_of(database)} is now that of {time.strftime(TIME, time.localtime(made))}, {done.rows} rows"
    if done.revoked_again:
        yield f"revoked again, as the database before had them revoked: {' '.join(done.revoked_again)}"
    if done.withdrawn:
        yield f"withdrawn, as they may be used up: the invitations of {' '.join(done.withdrawn)}"
    if not moving:
        yield "devices follow it in a new generation and keep their samples; later versions and updates are lost"
        yield (
            f"whoever was revoked since then may be approved again: {PROGRAM} devices list; whoever joined since then"
            f" waits for: {PROGRAM} devices approve"
        )
    yield f"then: {PROGRAM} setup --host NAME where the broker is missing too, or systemctl start {PROGRAM}"
