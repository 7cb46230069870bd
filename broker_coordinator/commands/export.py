"""Exporting a task's model as a safetensors file."""

from pathlib import Path

from broker_coordinator.aggregation.averaging import averaged_weights
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_protocol.errors import ConfigurationError


def model_of(journal: JournalReader, task: str, version: int | None, *, single: bool) -> bytes:
    """The weights of a task as a safetensors file: the mean of as many versions as its plan says, up to `version`.

    `version` None is the newest; `single` takes that version by itself. The coordinator may be running.

    Raises:
        ConfigurationError: there is no such task or version.
    """
    description = TaskRegistry(journal.engine).bundle(task).description
    count = 1 if single else description.aggregation.averaged_versions
    found = journal.last_versions(task, count, through=version)
    if not found or (version is not None and found[-1].number != version):
        newest = f"; the newest is {found[-1].number}" if found else ""
        wanted = "any version" if version is None else f"version {version}"
        raise ConfigurationError(f"the journal does not contain {wanted} of task {task!r}{newest}")
    return averaged_weights([each.weights for each in found], description.parameters)


def write_model(path: Path, weights: bytes) -> None:
    """Write a new file.

    Raises:
        ConfigurationError: it exists, or can't be written.
    """
    try:
        with path.open("xb") as file:
            file.write(weights)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; name a new file in a folder that exists") from error
