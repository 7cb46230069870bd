"""What a mask helper must never forget, in one file: its keys, and which sets it has spoken for.

The key is in there on purpose. Whoever loses the claims has lost the key with them, and begins with a new one, for
which no box was ever made; so a helper can't come back with its old key and answer a second time. For the same reason
a backup of this file must never be restored.
"""

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from edge_agent.shell.storage.damaged_files import why_unusable
from fleet_host.seal import new_key
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import SigningKey, VerifyKey
from secure_aggregation.encryption_key import write_encryption_key
from secure_aggregation.helper.claims import EarlierClaim, UpdateName

FILE_NAME: Final = "mask-claims.db"
SEAL_BYTES: Final = 8
_LAYOUT: Final = 1
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS key (seed BLOB NOT NULL, seal BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS cohorts (
    cohort BLOB PRIMARY KEY, set_hash BLOB NOT NULL, seal BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS updates (
    device BLOB NOT NULL, sequence INTEGER NOT NULL, set_hash BLOB NOT NULL, seal BLOB NOT NULL,
    PRIMARY KEY (device, sequence)
) WITHOUT ROWID;
"""
_ENCRYPTION_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS encryption_key (secret BLOB NOT NULL, file BLOB NOT NULL, seal BLOB NOT NULL)"
)
"""Of a key holder alone: made when it is one for the first time."""


class MaskClaims:
    """Durable `secure_aggregation.helper.claims.Claims`, of one process; with the key that they are of.

    Raises:
        ConfigurationError: the file can't be used, or is damaged; what to do.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=5.0, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            with self._transaction():
                self.key = self._open()
        except (sqlite3.Error, OSError) as error:
            raise ConfigurationError(_remedy(path, why_unusable(error, path))) from error

    def claim(self, cohort: bytes, set_hash: bytes, updates: Iterable[UpdateName]) -> EarlierClaim | None:
        """See `Claims`; on the disk when it returns None.

        Raises:
            sqlite3.Error: the disk; nothing was claimed.
        """
        named = tuple(updates)
        with self._transaction():
            for update, query, values in _lookups(cohort, named):
                row = self._connection.execute(query, values).fetchone()
                if row is not None and row[0] != set_hash:
                    return EarlierClaim(update, row[0])
            self._connection.execute(
                "INSERT OR IGNORE INTO cohorts VALUES (?, ?, ?)", (cohort, set_hash, _seal(cohort, set_hash))
            )
            self._connection.executemany(
                "INSERT OR IGNORE INTO updates VALUES (?, ?, ?, ?)",
                [(device, number, set_hash, _seal(device, number, set_hash)) for device, number in named],
            )
        return None

    def encryption_key(self) -> tuple[bytes, bytes]:
        """A key holder's secret key, residues as `fleet_host.seal` has them, and its public key's file; made at first.

        Raises:
            ConfigurationError: TenSEAL is not there, or the disk does not take a new key.
        """
        try:
            with self._transaction():
                self._connection.execute(_ENCRYPTION_TABLE)
                if (found := _encryption_key(self._connection)) is not None:
                    return found
                secret, public = new_key()
                file = write_encryption_key(self.key, public)
                values = (secret, file, _seal(secret, file))
                self._connection.execute("INSERT INTO encryption_key VALUES (?, ?, ?)", values)
                return secret, file
        except (sqlite3.Error, OSError) as error:
            raise ConfigurationError(_remedy(self._path, why_unusable(error, self._path))) from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _open(self) -> SigningKey:
        """The key, which is made where the file is new."""
        (layout,) = self._connection.execute("PRAGMA user_version").fetchone()
        if layout not in {0, _LAYOUT}:
            raise sqlite3.DatabaseError(f"its layout is {layout}, this edgeflock knows {_LAYOUT}; update edgeflock")
        if layout == 0:
            for statement in _TABLES.split(";"):
                self._connection.execute(statement)
            key = SigningKey.generate()
            self._connection.execute("INSERT INTO key VALUES (?, ?)", (bytes(key), _seal(bytes(key))))
            self._connection.execute(f"PRAGMA user_version = {_LAYOUT}")
            return key
        return _sound_key(self._connection)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


def read_mask_key(path: Path) -> VerifyKey:
    """The public key of the helper whose claims are there.

    Raises:
        ConfigurationError: there are none yet, or they are damaged.
    """
    with _reading(path) as connection:
        return _sound_key(connection).verify_key


def read_encryption_key_file(path: Path) -> bytes:
    """The file of the encryption key of the key holder whose claims are there.

    Raises:
        ConfigurationError: there is none yet, or they are damaged.
    """
    with _reading(path) as connection:
        _sound_key(connection)
        found = _encryption_key(connection)
    if found is None:
        raise ConfigurationError(
            f"{path}: this mask helper has no encryption key yet; write key_holder = true into [masks] of helper.toml,"
            " and start it once"
        )
    return found[1]


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.exists():
        raise ConfigurationError(f"{path} is not there: this mask helper has no key yet; start it once")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            yield connection
    except (sqlite3.Error, OSError) as error:
        raise ConfigurationError(_remedy(path, why_unusable(error, path))) from error


def _encryption_key(connection: sqlite3.Connection) -> tuple[bytes, bytes] | None:
    """The secret key and the public key's file; None where this is no key holder's."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'encryption_key'").fetchone():
        return None
    rows = connection.execute("SELECT secret, file, seal FROM encryption_key").fetchall()
    if len(rows) > 1 or any(_seal(secret, file) != seal for secret, file, seal in rows):
        raise sqlite3.DatabaseError("a row is not as it was written")
    return (rows[0][0], rows[0][1]) if rows else None


def _sound_key(connection: sqlite3.Connection) -> SigningKey:
    """The key of a file in which nothing is damaged: what a flipped bit has made of a claim would be no claim."""
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    keys = connection.execute("SELECT seed, seal FROM key").fetchall()
    rows = [
        *keys,
        *connection.execute("SELECT cohort, set_hash, seal FROM cohorts"),
        *connection.execute("SELECT device, sequence, set_hash, seal FROM updates"),
    ]
    if found != "ok" or len(keys) != 1 or any(_seal(*values) != seal for *values, seal in rows):
        raise sqlite3.DatabaseError("a row is not as it was written")
    return SigningKey(keys[0][0])


def _lookups(
    cohort: bytes, named: tuple[UpdateName, ...]
) -> Iterator[tuple[UpdateName | None, str, tuple[bytes | int, ...]]]:
    yield None, "SELECT set_hash FROM cohorts WHERE cohort = ?", (cohort,)
    for update in named:
        yield update, "SELECT set_hash FROM updates WHERE device = ? AND sequence = ?", update


def _seal(*values: bytes | int) -> bytes:
    hasher = hashlib.blake2b(digest_size=SEAL_BYTES)
    for value in values:
        content = value if isinstance(value, bytes) else value.to_bytes(8, "big")
        hasher.update(len(content).to_bytes(8, "big") + content)
    return hasher.digest()


def _remedy(path: Path, why: str) -> str:
    return (
        f"{why}. If it is damaged, move {path.name} away and start again: the helper then has a new key, which belongs"
        " into the task and into devices' trusted_mask_helpers. Never put an older copy of it back"
    )
