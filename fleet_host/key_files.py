"""Private key files: written once, and refused where others can read them."""

import os
import stat
from pathlib import Path

from fleet_host.new_files import write_new_file
from fleet_protocol.errors import ConfigurationError, why_unreadable
from fleet_protocol.keys import SigningKey, VerifyKey, read_signing_key, write_signing_key, write_verify_key

_OWNER_ALONE = 0o600
_OPEN_PERMISSIONS = stat.S_IRWXG | stat.S_IRWXO


def make_key_file(path: Path, program: str) -> VerifyKey:
    """Write a new private key with mode 0600; returns its public key. `program` is the command that makes such files.

    Raises:
        ConfigurationError: the file exists (the message has its public key), or can't be written.
    """
    key = SigningKey.generate()
    try:
        write_new_file(path, write_signing_key(key).encode(), _OWNER_ALONE)
    except FileExistsError as error:
        existing = write_verify_key(read_key_file(path, program).verify_key)
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
    make_one = f"{program} keygen {path}"
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read()
    except OSError as error:
        raise ConfigurationError(f"key file {path}: {why_unreadable(error, f'make one with: {make_one}')}") from error
    if mode & _OPEN_PERMISSIONS:
        raise ConfigurationError(
            f"key file {path} has mode {stat.S_IMODE(mode):04o}: others can read it; run: chmod 600 {path}"
        )
    try:
        return read_signing_key(text, f"key file {path}")
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{error}; restore it from a copy, or remove it and make a new one with: {make_one}"
        ) from error
