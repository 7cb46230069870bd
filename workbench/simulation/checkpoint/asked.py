"""What a checkpoint is of: everything that decides how a simulation goes, by the options that say it."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from bundle_runtime.bundle import Bundle, written
from edge_agent.profiles import read_profile

SHOWN_DIGITS = 16


def as_text(options: Mapping[str, object]) -> dict[str, str]:
    """The options that were given or have a default."""
    return {name: str(value) for name, value in options.items() if value is not None}


def content_of(task: Bundle, profiles: Iterable[str], files: Iterable[str | Path | None]) -> dict[str, str]:
    """What is in the task, as it is simulated, and in the files that options name: an edited one is another."""
    of_task = [written(task.description), *(each for _, each in sorted(task.files.items()))]
    of_profiles = [msgspec.json.encode(read_profile(name)) for name in profiles]
    of_files = [Path(each).read_bytes() for each in files if each is not None and Path(each).is_file()]
    found = {"content of the task": of_task, "content of the profiles": of_profiles, "content of the files": of_files}
    return {name: _digest(parts) for name, parts in found.items()}


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:SHOWN_DIGITS]
