"""What a child that runs graphs can't do: use more than it was given, and reach anything but what it needs.

A bundle's graphs come from others. They are checked before they are loaded (`bundle_runtime.graph_admission`); should
one find a defect of onnxruntime all the same, the process that it is in can open no file but the interpreter's
libraries and its own bundle, has no network, and starts nothing.
"""

import os
import resource
import sqlite3
import sysconfig
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import bundle_runtime
from edge_agent.training.landlock import LandlockError, allow_only
from edge_agent.training.syscall_filter import SyscallFilterError, refuse_calls
from fleet_host.child_process import prctl
from fleet_protocol.limits import MIB

PR_SET_NO_NEW_PRIVS = 38
"""From linux/prctl.h."""
OPEN_FILES = 64
"""At most so many at once: a round has about ten open."""
STORE_GROWTH_BYTES = 1024 * MIB
"""By how much the sample store may grow in one round; the features of five thousand samples are some tens of MiB."""

HEAVY_PACKAGES = ("numpy", "onnxruntime")
"""They may lie elsewhere than the interpreter's own packages."""
LIBRARY_FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
SYSTEM_FILES = ("/etc/ld.so.cache", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu", "/dev/null")
"""What numpy and onnxruntime read of the machine."""


class Limited(Protocol):
    """A job that says what the process may use which does it."""

    @property
    def nice(self) -> int:
        """Its nice level."""

    @property
    def memory_limit_mib(self) -> int:
        """In MiB."""

    @property
    def cpu_limit_seconds(self) -> int:
        """Of processor time."""


def limit(job: Limited) -> None:
    """Set the job's nice level, and its limits of memory (beyond it an allocation raises MemoryError), processor time
    and files; no core is dumped.
    """
    os.nice(job.nice)
    memory = job.memory_limit_mib * MIB
    limits = (
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_CPU, job.cpu_limit_seconds),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    )
    for which, most in limits:
        resource.setrlimit(which, (most, most))


def shut_in(readable: Iterable[Path], store: Path | None) -> str:
    """From now on this process opens libraries, `readable`, and the sample store where one is given: no other file, no
    socket, no program. There is no way back. Returns what this kernel can't refuse, in words; empty where it can all.

    The store's files must be open already, as no new ones can be made.
    """
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    writable = [store.with_name(store.name + suffix) for suffix in ("", "-wal", "-shm")] if store else []
    largest = store.stat().st_size + STORE_GROWTH_BYTES if store else 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    lacking = ["threads that run already"] if len(list(Path("/proc/self/task").iterdir())) > 1 else []
    try:
        allow_only([*library_paths(), *readable], writable)
    except LandlockError as error:
        lacking.append(f"files (Landlock: {error})")
    try:
        refuse_calls()
    except SyscallFilterError as error:
        lacking.append(f"network and programs (seccomp: {error})")
    return ", ".join(lacking)


def hold_open(store: Path) -> sqlite3.Connection:
    """A connection that keeps the store's files open, so that others can be made while no file can."""
    connection = sqlite3.connect(store, isolation_level=None)
    connection.execute("SELECT MAX(id) FROM samples")
    return connection


def library_paths() -> list[Path]:
    """Where the interpreter and what it imports have their files."""
    installed = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    found = [find_spec(name) for name in HEAVY_PACKAGES]
    installed |= {str(Path(spec.origin).parents[1]) for spec in found if spec and spec.origin}
    own = [Path(__file__).parents[1], Path(bundle_runtime.__path__[0])]
    return [Path(each) for each in (*sorted(installed), *LIBRARY_FOLDERS, *SYSTEM_FILES)] + own
