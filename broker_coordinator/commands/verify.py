"""Computes a task's versions again from the journal, and compares them with the stored ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from broker_coordinator.aggregation.version import Version, version_of, version_zero
from broker_coordinator.serving.replay import replayed
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle import Bundle
from fleet_protocol.bundle_files import blob_hash
from fleet_protocol.codec import read_weights
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.keys import KeyRing
from fleet_protocol.parameter import Parameter


@dataclass(frozen=True, slots=True)
class Difference:
    """The first difference: in which part of which version, and in which tensor and entry if the part has numbers."""

    version: int
    part: str
    tensor: str = ""
    entry: int | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """`compared` versions after `start` were the same to the last bit; the weights of `dropped` others are not kept."""

    task: str
    start: int
    compared: int
    dropped: int
    difference: Difference | None = None


def verify_versions(journal: JournalReader, task: str, start: int | None = None, keys: KeyRing = ()) -> Verification:
    """Compare every kept version after `start`, up to the first that differs. The coordinator may be running.

    The bundle's own version, from which it begins where there is no `start`, is compared with the bundle; any other
    `start` is taken as stored. `keys`, the coordinator's, decrypt updates.

    Raises:
        ConfigurationError: there is no such task, or what its versions are made from is dropped; it names the version
            to begin with.
        ProtocolError: an update is encrypted for another key.
    """
    bundle = TaskRegistry(journal.engine).bundle(task)
    first = journal.first_number(task)
    start = first if start is None else start
    compared = 0
    dropped = 0
    for made in _recomputed(journal, bundle, first, start, keys):
        stored = journal.version(task, made.number)
        if stored is None:
            dropped += 1
        elif difference := _difference(stored, made, bundle.description.version.parameters):
            return Verification(task, start, compared, dropped, difference)
        elif made.number > start:
            compared += 1
    return Verification(task, start, compared, dropped)


def _recomputed(journal: JournalReader, bundle: Bundle, first: int, start: int, keys: KeyRing) -> Iterator[Version]:
    if start == first:
        yield version_zero(bundle, first)
    reached = start
    try:
        for number, state in replayed(journal, bundle.description, start, keys):
            reached = number
            yield version_of(bundle.description, state, bundle.grid())
    except ConfigurationError as error:
        reason = str(error).partition("; begin")[0]
        begin = _next_start(journal, bundle, reached + 1, keys)
        remedy = "none of the later ones is kept" if begin is None else f"begin with version {begin}: --from {begin}"
        raise ConfigurationError(f"{reason}; {remedy}; [retention] keeps more of what is still to come") from error


def _next_start(journal: JournalReader, bundle: Bundle, start: int, keys: KeyRing) -> int | None:
    """The first version from `start` on behind which all can be computed again; None where there is none."""
    newest = journal.newest_number(bundle.description.task)
    while start <= newest:
        reached = start
        try:
            for number, _ in replayed(journal, bundle.description, start, keys):
                reached = number
        except ConfigurationError:
            start = reached + 1
        else:
            return start
    return None


def _difference(stored: Version, made: Version, parameters: Sequence[Parameter]) -> Difference | None:
    try:
        published = read_weights(stored.weights, parameters).tobytes()
    except ProtocolError:
        return Difference(stored.number, "weights")
    parts = {
        "weights": (published, read_weights(made.weights, parameters).tobytes()),
        "unrounded": (stored.unrounded, made.unrounded),
        "moments": (stored.moments, made.moments),
    }
    for part, (found, expected) in parts.items():
        if found != expected:
            return Difference(stored.number, part, *_first_entry(found, expected, parameters))
    for part in ("step", "clip"):
        if getattr(stored, part) != getattr(made, part):
            return Difference(stored.number, part)
    if stored.weights_hash != blob_hash(stored.weights):
        return Difference(stored.number, "weights_hash")
    # A rollback to version 0 stores the bundle's own file, which another program may have written.
    if stored.restored is None and stored.weights != made.weights:
        return Difference(stored.number, "header of the weights")
    return None


def _first_entry(found: bytes, expected: bytes, parameters: Sequence[Parameter]) -> tuple[str, int | None]:
    """The tensor and the entry in it where rows of float32 vectors first differ; nothing if their lengths do."""
    if len(found) != len(expected):
        return "", None
    ends = np.cumsum([parameter.size for parameter in parameters])
    place = np.flatnonzero(np.frombuffer(found, "<u4") != np.frombuffer(expected, "<u4"))[0] % ends[-1]
    index = int(np.searchsorted(ends, place, side="right"))
    return parameters[index].name, int(place - ends[index]) + parameters[index].size
