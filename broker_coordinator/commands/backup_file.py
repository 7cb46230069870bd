"""The file that `backup` writes: a tar of a coordinator's database and small files; the first member lists them.

The database is SQLite, whatever the coordinator's own is. Nothing of the file is used before it is checked: it may be
cut off, altered, or somebody else's.
"""

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

import msgspec

from fleet_host.new_files import FULL, remedy_for
from fleet_protocol.configuration import Name, one_line
from fleet_protocol.device_invitation import MAX_EXPIRY
from fleet_protocol.document_errors import NOT_JSON
from fleet_protocol.errors import ConfigurationError, why_unreadable
from fleet_protocol.limits import MIB

FORMAT = 1
"""Counts up where an earlier edgeflock can't read the file."""
CONTENTS = "edgeflock-backup.json"
DATABASE = "coordinator.db"
MAX_SMALL_BYTES = MIB
"""Of each file but the database: keys, certificates, configuration."""
MAX_SMALL_FILES = 5000
"""So that the list of them has MAX_SMALL_BYTES at most. A fleet whose devices have certificates has two for each."""
OWNER_ALONE = 0o600
PIECE_BYTES = MIB
MAX_VERSION_CHARACTERS = 100
"""Of the name of a release."""

_NAME = re.compile(r"(configuration|authority|authority/next)/[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


class BackupContents(msgspec.Struct, frozen=True):
    """What the first member says. `made` is in seconds since 1970; `hashes` are SHA-256 of the other members."""

    format: Annotated[int, msgspec.Meta(ge=1)]
    made: Annotated[int, msgspec.Meta(ge=0, le=MAX_EXPIRY)]
    edgeflock: Annotated[str, one_line(MAX_VERSION_CHARACTERS)]
    fleet: Name
    hashes: dict[str, str]


def is_member(name: str) -> bool:
    """Whether a small file may have this name: it says where the file belongs."""
    return _NAME.fullmatch(name) is not None


def write_backup(path: Path, contents: BackupContents, files: Mapping[str, bytes], database: Path) -> None:
    """Write a new file; `contents` without hashes.

    Raises:
        ConfigurationError: it exists, or can't be written; then it is not there.
    """
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    with database.open("rb") as opened:
        hashes[DATABASE] = hashlib.file_digest(opened, "sha256").hexdigest()
    told = msgspec.json.encode(msgspec.structs.replace(contents, hashes=hashes))
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ALONE), "wb") as file:
            try:
                _write_members(file, {CONTENTS: told, **files}, database)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                path.unlink()
                raise
    except FileExistsError as error:
        raise ConfigurationError(f"{path} exists; a backup is never overwritten: name another file") from error
    except OSError as error:
        raise ConfigurationError(
            f"{path}: {error.strerror}; {remedy_for(error, 'name a file on another disk')}"
        ) from error


def _write_members(file: IO[bytes], small: Mapping[str, bytes], database: Path) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in small.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), OWNER_ALONE
            archive.addfile(member, io.BytesIO(content))
        member = tarfile.TarInfo(DATABASE)
        member.size, member.mode = database.stat().st_size, OWNER_ALONE
        with database.open("rb") as opened:
            archive.addfile(member, opened)


class Backup:
    """A file that is open for reading. Every method raises ConfigurationError where it is damaged."""

    def __init__(self, path: Path, archive: tarfile.TarFile) -> None:
        self._path = path
        self._archive = archive
        self.contents = self._read_contents()

    def files(self) -> dict[str, bytes]:
        """The small files, by `configuration/NAME` or `authority/NAME`."""
        names = sorted(self.contents.hashes.keys() - {DATABASE})
        if len(names) > MAX_SMALL_FILES or not all(map(is_member, names)):
            raise self._damaged("it names files that no backup has")
        return {name: self._checked(name) for name in names}

    def check_database(self) -> None:
        """Read the database, and leave it."""
        for _ in self._database():
            pass

    def extract_database(self, target: Path) -> None:
        """Write the database to a new file.

        Raises:
            OSError: it can't be written.
        """
        try:
            with target.open("xb") as written:
                for piece in self._database():
                    written.write(piece)
        except OSError as error:
            if error.errno in FULL:
                error.filename = str(target)  # which the system does not name
            raise

    def _database(self) -> Iterator[bytes]:
        hashed = hashlib.sha256()
        with self._member(DATABASE) as source:
            while piece := source.read(PIECE_BYTES):
                hashed.update(piece)
                yield piece
        if hashed.hexdigest() != self.contents.hashes.get(DATABASE):
            raise self._damaged("the database in it is cut off or altered")

    def _read_contents(self) -> BackupContents:
        with self._member(CONTENTS) as file:
            text = file.read(MAX_SMALL_BYTES)
        try:
            contents = msgspec.json.decode(text, type=BackupContents)
        except NOT_JSON as error:
            raise self._damaged(f"{CONTENTS} in it can't be read: {error}") from error
        if contents.format > FORMAT:
            raise ConfigurationError(
                f"{self._path}: a backup of format {contents.format}, by edgeflock {contents.edgeflock}; this one reads"
                f" up to {FORMAT}: update edgeflock, and run this again"
            )
        return contents

    def _checked(self, name: str) -> bytes:
        with self._member(name) as file:
            content = file.read(MAX_SMALL_BYTES + 1)
        if len(content) > MAX_SMALL_BYTES or hashlib.sha256(content).hexdigest() != self.contents.hashes[name]:
            raise self._damaged(f"{name} in it is cut off or altered")
        return content

    @contextmanager
    def _member(self, name: str) -> Iterator[IO[bytes]]:
        try:
            member = self._archive.getmember(name)
        except (KeyError, tarfile.TarError, OSError, EOFError) as error:
            raise self._damaged(f"there is no {name} in it") from error
        if not member.isreg() or member.issparse():  # neither a way to another file, nor larger than it is here
            raise self._damaged(f"{name} in it is no plain file")
        try:
            found = self._archive.extractfile(member)
            assert found is not None  # noqa: S101 - it is a plain file
            with found:
                yield found
        except (tarfile.TarError, EOFError) as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, why: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self._path}: {why}; it is no whole backup: copy it again from where it is kept, or take an earlier one"
        )


@contextmanager
def opened_backup(path: Path) -> Iterator[Backup]:
    """A backup, to be read.

    Raises:
        ConfigurationError: it is none, or damaged.
    """
    try:
        archive = tarfile.open(path, "r:")  # noqa: SIM115 - closed below
    except OSError as error:
        raise ConfigurationError(f"{path}: {why_unreadable(error, 'name what `backup` wrote')}") from error
    except tarfile.TarError as error:
        raise ConfigurationError(f"{path}: no backup ({error}); name what `broker-coordinator backup` wrote") from error
    with archive:
        yield Backup(path, archive)
