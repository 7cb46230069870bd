"""Private key files: never overwritten, and refused where others can read them."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fleet_host.new_files import remedy_for, replace_file, write_new_file
from fleet_protocol.errors import ConfigurationError, why_unreadable
from fleet_protocol.keys import (
    KeyRing,
    SigningKey,
    VerifyKey,
    read_key_ring,
    read_signing_key,
    write_key_ring,
    write_signing_key,
    write_verify_key,
)
from fleet_protocol.limits import KIB, MAX_COORDINATOR_KEYS

MAX_FILE_CHARACTERS = 16 * KIB
"""Of a key file: more than as many keys as are kept. A longer one is none, and is not read further."""
_OWNER_ALONE = 0o600
_OPEN_PERMISSIONS = stat.S_IRWXG | stat.S_IRWXO

Keys = TypeVar("Keys", SigningKey, KeyRing)


def make_key_file(path: Path, program: str) -> VerifyKey:
    """Write a new private key with mode 0600; returns its public key. `program` is the command that makes such files.

    Raises:
        ConfigurationError: the file exists (the message has its public key), or can't be written.
    """
    key = SigningKey.generate()
    try:
        write_new_file(path, write_signing_key(key).encode(), _OWNER_ALONE)
    except FileExistsError as error:
        existing = write_verify_key(read_key_ring_file(path, program)[0].verify_key)
        raise ConfigurationError(
            f"key file {path} exists; a key is never overwritten: use it, its public key is {existing};"
            " or remove it, or name another"
        ) from error
    except OSError as error:
        raise ConfigurationError(f"key file {path}: {error.strerror}; nothing was written") from error
    return key.verify_key


def read_key_file(path: Path, program: str) -> SigningKey:
    """Read a private key. `program` is the command whose `keygen` makes such a file.

    Raises:
        ConfigurationError: missing, open to others, or not a key; says what to run.
    """
    return _read(path, program, read_signing_key)


def read_key_ring_file(path: Path, program: str) -> KeyRing:
    """Read a coordinator's key and, below it, those that it has followed; otherwise as `read_key_file`."""
    return _read(path, program, read_key_ring)


def add_newest_key(path: Path, program: str) -> VerifyKey:
    """Make a key and put it above those in a coordinator's key file; returns its public key.

    Raises:
        ConfigurationError: from `read_key_ring_file`; the file is full; or it can't be written, and stays as it is.
    """
    keys = read_key_ring_file(path, program)
    if len(keys) >= MAX_COORDINATOR_KEYS:
        raise ConfigurationError(
            f"key file {path} has {len(keys)} keys, as many as are kept: delete its first line, which counts them, and"
            " its last, the oldest key, once no device has that one any more"
        )
    newest = SigningKey.generate()
    try:
        replace_file(path, write_key_ring((newest, *keys)).encode(), _OWNER_ALONE)
    except OSError as error:
        remedy = remedy_for(error, "run it with sudo" if isinstance(error, PermissionError) else "check the disk")
        raise ConfigurationError(f"key file {path}: {error.strerror}; it stays as it is: {remedy}") from error
    return newest.verify_key


def _read(path: Path, program: str, read: Callable[[str, str], Keys]) -> Keys:
    make_one = f"{program} keygen {path}"
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(MAX_FILE_CHARACTERS)
    except OSError as error:
        raise ConfigurationError(f"key file {path}: {why_unreadable(error, f'make one with: {make_one}')}") from error
    if mode & _OPEN_PERMISSIONS:
        raise ConfigurationError(
            f"key file {path} has mode {stat.S_IMODE(mode):04o}: others can read it; run: chmod 600 {path}"
        )
    try:
        return read(text, f"key file {path}")
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{error}; restore it from a copy, or remove it and make a new one with: {make_one}"
        ) from error
