"""A task's bundle with the weights to draw with: out of a coordinator's database, or out of files."""

import stat
from dataclasses import dataclass
from pathlib import Path

from broker_coordinator.commands.export import model_of
from broker_coordinator.configuration import load_configuration
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.codec import read_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ConfigurationError, ProtocolError, why_unreadable
from fleet_protocol.limits import MAX_BLOB_BYTES
from workbench.coordinator_database import database_errors_told
from workbench.recipe_folder import find_bundle


@dataclass(frozen=True, slots=True)
class ModelAtHand:
    """A bundle, and the weights f32[P] of one model of its task."""

    bundle: Bundle
    weights: FloatVector


def from_coordinator(
    task: str, configuration: Path, version: int | None, cluster: int | None, weights: Path | None
) -> ModelAtHand:
    """The model that `broker-coordinator tasks export` writes of a version, None for the newest.

    Raises:
        ConfigurationError: there is no such database, task, version or cluster, or the database can't be read; or
            `weights` are given too.
    """
    if weights is not None:
        raise ConfigurationError("--config and --weights both say which weights to draw with; leave one out")
    with database_errors_told(), JournalReader.open(load_configuration(configuration).journal()) as reader:
        bundle = TaskRegistry(reader.engine).bundle(task)
        model = model_of(reader, task, version, single=False, cluster=cluster or NO_CLUSTER)
    return ModelAtHand(bundle, read_weights(model, bundle.description.parameters))


def from_file(task: str, weights: Path | None, version: int | None, cluster: int | None) -> ModelAtHand:
    """The model in a safetensors file, of a bundle's folder or of a shipped recipe.

    Raises:
        ConfigurationError: there is no file, it is no model of the task, or a version or cluster is asked for.
    """
    if weights is None or version is not None or cluster is not None:
        raise ConfigurationError(
            "a file holds one model, and a coordinator's database all: name --weights FILE alone, or --config"
            " coordinator.toml with --version and --cluster"
        )
    bundle = load_bundle(find_bundle(task))
    try:
        return ModelAtHand(bundle, read_weights(_content(weights), bundle.description.parameters))
    except OSError as error:
        raise ConfigurationError(f"{weights}: {why_unreadable(error, 'name a file that exists')}") from error
    except ProtocolError as error:
        raise ConfigurationError(
            f"{weights}: {error.detail}; name what `broker-coordinator tasks export` wrote of task"
            f" {bundle.description.task!r}"
        ) from error


def _content(path: Path) -> bytes:
    status = path.stat()
    if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_BLOB_BYTES:
        return path.read_bytes()
    raise ConfigurationError(
        f"{path}: {status.st_size} bytes, or no regular file; a model is a regular file of at most MAX_BLOB_BYTES"
        f" ({MAX_BLOB_BYTES}); name what `broker-coordinator tasks export` wrote"
    )
