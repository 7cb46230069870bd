"""Landlock: the kernel lets this process open what is listed here, and nothing else, until it ends.

By ctypes: the interface is three system calls that Linux promises to keep, and the packages for it on PyPI are young,
or have had no release for long (docs.kernel.org/userspace-api/landlock.html).
"""

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""System calls, with one number on every machine."""
GET_VERSION = 1
PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
FILES_BY_VERSION = ((1, 13), (2, 14), (3, 15), (5, 16))
"""Since a version of Landlock, how many kinds of access to files it knows, counted from bit 0."""
NETWORK_SINCE, NETWORK = 4, 0b11
"""To bind TCP sockets, and to connect them."""
SCOPES_SINCE, SCOPES = 6, 0b11
"""Abstract Unix sockets, and signals to processes outside."""

ATTRIBUTE_BYTES = {1: 8, NETWORK_SINCE: 16, SCOPES_SINCE: 24}
"""Since a version of Landlock, how long the attribute of a new ruleset is."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


class LandlockError(Exception):
    """This kernel does not confine the process; says why. Nothing is confined then."""


def allow_only(readable: Iterable[Path], writable: Iterable[Path]) -> None:
    """Let this process open these files, and what is below these folders, and nothing else; there is no way back.

    What is open stays usable. Needs `no_new_privs`; other threads that run already are not confined. A path that does
    not exist is left out.

    Raises:
        LandlockError: the kernel is older than 5.13, was built or started without Landlock, or a filter forbids it.
    """
    version = _call(CREATE_RULESET, None, 0, GET_VERSION)
    files = (1 << _newest(dict(FILES_BY_VERSION), version)) - 1
    attribute = _Ruleset(files, NETWORK if version >= NETWORK_SINCE else 0, SCOPES if version >= SCOPES_SINCE else 0)
    ruleset = _call(CREATE_RULESET, ctypes.byref(attribute), _newest(ATTRIBUTE_BYTES, version), 0)
    try:
        for path in readable:
            _allow(ruleset, path, (EXECUTE | READ_FILE | READ_DIR) & files)
        for path in writable:
            _allow(ruleset, path, (READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE) & files)
        _call(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, access: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not path.is_dir():
            access &= ~READ_DIR
        rule = _PathBeneath(access, opened)
        _call(ADD_RULE, ruleset, PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(opened)


def _newest(by_version: dict[int, int], version: int) -> int:
    """The value of the last key that is at most `version`."""
    return by_version[max(since for since in by_version if since <= version)]


def _call(number: int, *arguments: object) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result: int = library.syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise LandlockError(os.strerror(ctypes.get_errno()))
    return result
