"""Exporting a task's model as a safetensors file, and its bundle as a folder."""

import shutil
from pathlib import Path

from broker_coordinator.aggregation.averaging import averaged_numbers, averaged_weights
from broker_coordinator.commands.gossip_told import require_versions
from broker_coordinator.storage.cluster_registry import check_has
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle import Bundle
from fleet_host.new_files import remedy_for, write_new_file
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.codec import read_model, write_weights
from fleet_protocol.errors import ConfigurationError


def model_of(
    journal: JournalReader, task: str, version: int | None, *, single: bool, cluster: int = NO_CLUSTER
) -> bytes:
    """The weights of a task as a safetensors file: the mean of as many versions as its plan says, up to `version`, or
    that version alone while there are fewer to average.

    `version` None is the newest; `single` takes that version by itself. Of a task with copies of parameters, those of a
    `cluster`. The coordinator may be running.

    Raises:
        ConfigurationError: there is no such task, version or cluster.
    """
    require_versions(TaskRegistry(journal.engine), task, "tasks export")
    description = TaskRegistry(journal.engine).bundle(task).description
    if cluster != NO_CLUSTER:
        check_has(description, cluster)
    newest = journal.newest_number(task)
    last = newest if version is None else version
    count = 1 if single else description.averaged_versions
    may_count = journal.history(task).numbers_to_average(last) if last <= newest else []
    numbers = averaged_numbers(may_count, last, count)
    kept = set(journal.kept_numbers(task))
    if not kept.issuperset(numbers):
        numbers = [last]
    if last not in kept:
        raise ConfigurationError(
            f"version {last} of task {task!r} is not in the journal, or its weights are dropped; the newest is"
            f" {newest}; see which are kept with: broker-coordinator tasks show"
        )
    found = journal.versions(task, after=min(numbers) - 1, before=last + 1)
    versions = (each.weights for each in found if each.number in numbers)
    averaged = averaged_weights(versions, description.version.parameters)
    if description.version.size == description.parameter_count:
        return averaged
    return write_weights(read_model(averaged, description, cluster), description.parameters)


def write_bundle(folder: Path, bundle: Bundle) -> None:
    """Write the files of a bundle into a new folder, all of them or nothing.

    Raises:
        ConfigurationError: it exists, or can't be written.
    """
    try:
        folder.mkdir(parents=True)
        try:
            for name, content in bundle.files.items():
                (folder / name).write_bytes(content)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    except OSError as error:
        raise ConfigurationError(f"{folder}: {error.strerror}; {remedy_for(error, 'name a new folder')}") from error


def write_model(path: Path, weights: bytes) -> None:
    """Write a new file.

    Raises:
        ConfigurationError: it exists, or can't be written.
    """
    try:
        write_new_file(path, weights)
    except OSError as error:
        remedy = remedy_for(error, "name a new file in a folder that exists")
        raise ConfigurationError(f"{path}: {error.strerror}; {remedy}") from error
