"""`edge-agent samples`: what is stored on this device, for its owner. Nothing here sends it anywhere."""

import contextlib
import csv
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from edge_agent.configuration import AgentConfiguration
from edge_agent.shell.samples.dropped_samples import Dropped, dropped_words
from edge_agent.shell.samples.sample_inventory import TaskInventory, exported_rows, inventory
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.shell.state_folder import open_samples, sample_file
from edge_agent.sources.sample_commands import Changed
from edge_agent.verbs.own_status import NoAgentError, ask, ask_line
from fleet_protocol.errors import ConfigurationError, why_unreadable
from fleet_protocol.limits import MIB
from fleet_protocol.printable import printable


class _WithDropped(msgspec.Struct):
    """Of the agent's status."""

    dropped: Dropped = {}


OWNER_ONLY = 0o600
"""The mode of a file of exported samples."""
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
"""It is written where it was made, whoever may put another in its place meanwhile."""


def show_stats(configuration: AgentConfiguration, write: Callable[[str], object], *, as_json: bool) -> None:
    """Write what is stored of each task.

    Raises:
        ConfigurationError: there is no store, or it can't be read.
    """
    found = _counted(configuration, inventory(sample_file(configuration), [each.name for each in configuration.tasks]))
    if as_json:
        write(msgspec.json.encode(found).decode() + "\n")
        return
    for line in _lines(configuration, found):
        write(f"{printable(line)}\n")


def _lines(configuration: AgentConfiguration, found: Mapping[str, TaskInventory]) -> Iterator[str]:
    store = configuration.store
    for task, held in found.items():
        yield (
            f"{task}: {held.samples} of at most {store.maximum_samples} samples, {held.bytes / MIB:.1f} of at most"
            f" {store.maximum_mib} MiB; beyond that, kept are: {store.retention}"
        )
        if held.samples:
            yield f"  numbers {held.first} to {held.last}; {held.with_features} have features of a backbone"
        if held.classes:
            counts = ", ".join(f"{label}: {count}" for label, count in sorted(held.classes.items()))
            yield f"  of each class: {counts}"
        if held.waiting:
            yield f"  {held.waiting} more wait for the task's schema"
        if dropped := dropped_words(held.dropped):
            yield f"  {dropped}"


def _counted(configuration: AgentConfiguration, found: Mapping[str, TaskInventory]) -> dict[str, TaskInventory]:
    """With what a running agent has counted as dropped, and writes down later."""
    try:
        said = msgspec.json.decode(ask(configuration.sample_socket, "status"), type=_WithDropped).dropped
    except (ConfigurationError, msgspec.MsgspecError):
        said = {}
    return {
        task: msgspec.structs.replace(held, dropped=held.dropped | said.get(task, {})) for task, held in found.items()
    }


def export_samples(configuration: AgentConfiguration, task: str, file: Path, *, numbers: bool) -> int:
    """Write a task's samples to a new csv file that its owner alone may read; returns how many.

    Raises:
        ConfigurationError: there is no store, or a file cannot be read or written; what was begun is deleted.
    """
    rows = exported_rows(sample_file(configuration), task, numbers=numbers)
    if (header := next(rows, None)) is None:
        waiting = inventory(sample_file(configuration), [task])[task].waiting
        words = f"; {waiting} wait for the task's schema, which comes with its first round" if waiting else ""
        raise ConfigurationError(f"no sample of {task} is stored{words}")
    count = 0
    try:
        with os.fdopen(os.open(file, NEW_FILE, OWNER_ONLY), "w", encoding="ascii", newline="") as opened:
            writer = csv.writer(opened, lineterminator="\n")
            writer.writerow(header)
            for row in rows:
                writer.writerow(row)
                count += 1
    except FileExistsError:
        raise ConfigurationError(f"{file} is there already; choose another name") from None
    except OSError as error:
        with contextlib.suppress(OSError):
            file.unlink()
        raise ConfigurationError(f"{file}: {why_unreadable(error, 'choose another name')}") from error
    return count


def forget_samples(configuration: AgentConfiguration, tasks: Sequence[str], numbers: list[int] | None) -> int:
    """Delete these samples of each task, or all; the running agent does it, or this process where none runs.

    Raises:
        ConfigurationError: it can't be done; what is left, and what to do.
    """
    try:
        return sum(_ask_to_forget(configuration.sample_socket, task, numbers) for task in tasks)
    except NoAgentError:
        return _forget_alone(configuration, tasks, numbers)


def _ask_to_forget(socket_path: Path, task: str, numbers: list[int] | None) -> int:
    question = {"command": "forget", "task": task} | ({} if numbers is None else {"samples": numbers})
    return changed_by(socket_path, question).forgotten or 0


def changed_by(socket_path: Path, question: Mapping[str, object]) -> Changed:
    """What the running agent has changed of its samples.

    Raises:
        ConfigurationError: it refuses, or is another release.
        NoAgentError: none runs.
    """
    answer = ask_line(socket_path, msgspec.json.encode(question))
    try:
        return msgspec.json.decode(answer, type=Changed)
    except msgspec.ValidationError:
        words = msgspec.json.decode(answer).get("error", "its answer is not this release's: restart it")
        raise ConfigurationError(f"the agent: {words}") from None


def _forget_alone(configuration: AgentConfiguration, tasks: Sequence[str], numbers: list[int] | None) -> int:
    file = sample_file(configuration)
    if not file.exists():
        return 0
    store: SampleStore | None = None
    try:
        store = open_samples(configuration)
        return sum(store.forget(task, numbers) for task in tasks)
    except (OSError, sqlite3.Error) as error:
        raise ConfigurationError(f"{file}: {error}; run this with the agent's account") from error
    finally:
        if store is not None:
            store.close()
