"""`edge-agent measure`: what this machine has and how fast it is, as a profile."""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import zstandard

from edge_agent.core.guards import GuardSettings
from edge_agent.profiles import (
    Board,
    Device,
    Measured,
    Profile,
    detected_profile,
    read_profile,
)
from edge_agent.shell.host import machine
from edge_agent.shell.host.this_board import this_board
from edge_agent.worker.measured import MeasuredStep
from fleet_host.child_process import bound
from fleet_host.new_files import remedy_for, write_new_file
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MIB

STEP_SECONDS = 40.0
"""Longest time for the training step, its libraries included, on a Pi Zero's card."""
RATE_SECONDS = 1.0
"""For each of the other rates: at least one block, whatever it takes."""
BLOCK_BYTES = MIB
DISK_BLOCKS = 64
"""Most that is written to the disk, in blocks."""
ZSTD_LEVEL = 3
"""The quick one of the codec."""
MOST_OF_MEMORY = 0.4
"""Share that a worker may have of what the machine has, as in the shipped profiles for boards of 1 GB and more."""

_PACKAGE = Path(__file__).resolve().parents[1]
BUNDLES = (_PACKAGE / "measured_bundle", _PACKAGE.parent / "models" / "digits" / "bundle")
"""In an installed wheel, and in a checkout."""


def measured_profile(board: Board, folder: Path, day: str) -> Profile:
    """A profile of this machine; `folder` is on the disk that counts, and `day` says when.

    It takes from the shipped profile that fits best what can't be measured, and no more than is here.

    Raises:
        ConfigurationError: a training step does not run here, or the folder can't be written.
    """
    began = time.monotonic()
    step = _measured_step()
    start_seconds = time.monotonic() - began
    parent = detected_profile(board)
    base = read_profile(parent)
    block = os.urandom(BLOCK_BYTES // 2) + bytes(BLOCK_BYTES // 2)
    measured = Measured(
        step_seconds=step.step_seconds,
        peak_memory_mib=round(step.peak_memory_mib, 1),
        hash_mib_s=_rate(lambda: hashlib.sha256(block).digest()),
        compress_mib_s=_rate(lambda: zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(block)),
        disk_write_mib_s=_disk_rate(folder, block),
        temperature_sensor=_temperature_sensor(),
    )
    return msgspec.structs.replace(
        base,
        inherits=parent,
        device=Device(
            cores=board.cores,
            memory_mib=int(board.memory_mib),
            cpu=base.device.cpu if parent != "generic" else board.cpu,
            name=board.model or f"{board.cpu} machine",
            source=[f"measured by edge-agent measure on {day}"],
        ),
        simulation=msgspec.structs.replace(
            base.simulation,
            training_mflops=round(step.operations / step.step_seconds / 1e6, 1),
            start_seconds=round(start_seconds, 2),
        ),
        worker=msgspec.structs.replace(
            base.worker,
            threads=min(base.worker.threads, board.cores),
            memory_limit_mib=max(1, min(base.worker.memory_limit_mib, int(MOST_OF_MEMORY * board.memory_mib))),
        ),
        measured=measured,
    )


def measure(file: Path | None, day: str, write: Callable[[str], object]) -> None:
    """Measure this machine; write the profile to a new `file`, or else by `write`.

    Raises:
        ConfigurationError: see `measured_profile`; or the file exists, or can't be written.
    """
    if file is not None and file.exists():
        raise ConfigurationError(f"{file} exists and stays as it is; name another file")
    folder = file.parent if file else Path(tempfile.gettempdir())
    text = as_toml(measured_profile(this_board(), folder, day))
    if file is None:
        write(text)
        return
    try:
        # Of root's into the agent's own folder, it is the agent's to read, whatever the umask.
        write_new_file(file, text.encode(), owner=file.parent.stat() if os.geteuid() == 0 else None)
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}; {remedy_for(error, 'name another file')}") from error
    write(f'wrote {file}; in agent.toml: profile = "{file.resolve()}"\n')


def as_toml(profile: Profile) -> str:
    """The file of a profile that stands by itself: every key is there, but for those that are not set."""
    document = {
        name: {key: value for key, value in table.items() if value is not None} if isinstance(table, dict) else table
        for name, table in msgspec.to_builtins(profile).items()
        if table is not None
    }
    tables = {name: table for name, table in document.items() if isinstance(table, dict)}
    above = {name: value for name, value in document.items() if name not in tables}
    parts = ["\n".join(f"{key} = {_value(value)}" for key, value in above.items())]
    for name, table in tables.items():
        parts.append("\n".join([f"[{name}]", *(f"{key} = {_value(value)}" for key, value in table.items())]))
    return "\n\n".join(parts) + "\n"


def _value(value: object) -> str:
    """A value of TOML: of text, numbers, booleans and lists of them JSON has the same form."""
    return msgspec.json.encode(value).decode()


def _measured_step() -> MeasuredStep:
    bundle = next((folder for folder in BUNDLES if folder.is_dir()), None)
    if bundle is None:
        raise ConfigurationError(f"{BUNDLES[0]}: missing, so no training step can be measured; install edgeflock again")
    command = bound([sys.executable, "-P", "-m", "edge_agent.training.measured_step", str(bundle)])
    try:
        run = subprocess.run(command, check=True, capture_output=True, timeout=STEP_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ConfigurationError(f"a training step takes over {STEP_SECONDS:.0f} s here; check the card") from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        raise ConfigurationError(f"no training step runs here: {said}; see edge-agent doctor") from error
    return msgspec.json.decode(run.stdout, type=MeasuredStep)


def _rate(of_a_block: Callable[[], object]) -> float:
    """MiB per second."""
    blocks, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < RATE_SECONDS or not blocks:
        of_a_block()
        blocks += 1
    return round(blocks * BLOCK_BYTES / MIB / spent, 1)


def _disk_rate(folder: Path, block: bytes) -> float:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            blocks, began = 0, time.perf_counter()
            while blocks < DISK_BLOCKS and (time.perf_counter() - began < RATE_SECONDS or not blocks):
                file.write(block)
                file.flush()
                os.fsync(file.fileno())
                blocks += 1
            return round(blocks * BLOCK_BYTES / MIB / (time.perf_counter() - began), 1)
    except OSError as error:
        raise ConfigurationError(f"{folder}: {error.strerror}; {remedy_for(error, 'name another --out')}") from error


def _temperature_sensor() -> str:
    found = machine.temperature(GuardSettings(maximum_temperature_celsius=100.0))
    return found.sensor if found else ""
