"""Features: what the frozen backbone makes of a sample, computed once and kept in the sample store.

The worker writes them itself, in one short transaction per mini-batch. A worker that is killed loses that mini-batch
only, and the next one continues there: a slow device with many samples finishes, whatever its time limit is.
"""

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.backbone import ROWS_AT_ONCE, Backbone
from bundle_runtime.graph import GraphError
from edge_agent.training.stored_sample_checks import check_inputs
from edge_agent.worker.damage import is_unusable
from edge_agent.worker.usable_samples import fitting
from fleet_protocol.task_description import TaskDescription

FloatRows: TypeAlias = NDArray[np.float32]
Features: TypeAlias = Callable[[FloatRows], FloatRows]
"""From inputs f32[N, *input.shape] to features f32[N, *feature_shape]."""

BUSY_SECONDS = 30.0
"""How long to wait for the agent to finish storing a sample."""


class FeaturesError(Exception):
    """Features can't be computed or stored; says why. Those stored before stay."""


def compute_features(
    store: Path, task: TaskDescription, file: Path, threads: int, *, samples_alone: bool = False
) -> int:
    """Compute and keep the features of every sample of the task that has none by this backbone; returns how many.

    With `samples_alone`, each by itself: no graph then lets a sample speak through the features of others, or by
    failing: the features of one that it fails on are zeros.

    Raises:
        GraphError: the backbone can't be loaded, or fails on a sample; with `samples_alone`, on zeros.
        UnfitSamplesError: some samples are not what the task takes; those before them are kept.
        sqlite3.DatabaseError: the store is damaged.
        FeaturesError: a sample's features aren't finite, or they can't be stored.
    """
    connection = sqlite3.connect(store, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous=NORMAL")
        computed = 0
        compute: Features | None = None
        while rows := _without_features(connection, task):
            compute = compute or _features_of(task, Backbone(file, threads), samples_alone=samples_alone)
            _keep(connection, task, rows, compute)
            computed += len(rows)
    except sqlite3.Error as error:
        if is_unusable(error):
            raise
        raise FeaturesError(f"features of {task.task} can't be kept in {store}: {error}; is the disk full?") from error
    finally:
        connection.close()
    return computed


def _without_features(connection: sqlite3.Connection, task: TaskDescription) -> list[tuple[int, bytes]]:
    """(id, inputs) of the oldest samples that lack features, a mini-batch of them at most."""
    condition, sizes = fitting(task)
    source = "samples LEFT JOIN features ON sample = id AND backbone = ?"
    query = f"SELECT id, inputs FROM {source} WHERE sample IS NULL AND task = ? AND {condition} ORDER BY id LIMIT ?"  # noqa: S608
    return connection.execute(query, (task.backbone_hash, task.task, *sizes, ROWS_AT_ONCE)).fetchall()


def _features_of(task: TaskDescription, backbone: Backbone, *, samples_alone: bool) -> Features:
    if not samples_alone:
        return backbone.features
    instead = np.zeros((1, *task.trained_input.shape), np.float32)
    backbone.features(np.zeros((1, *task.input.shape), np.float32))  # what fails here is no sample's doing

    def of_one(inputs: FloatRows) -> FloatRows:
        with contextlib.suppress(GraphError, MemoryError):
            found = backbone.features(inputs)
            if found.shape == instead.shape and np.isfinite(found).all():
                return found
        return instead

    return lambda inputs: np.concatenate([of_one(inputs[row : row + 1]) for row in range(len(inputs))])


def _keep(
    connection: sqlite3.Connection, task: TaskDescription, rows: list[tuple[int, bytes]], compute: Features
) -> None:
    inputs = np.frombuffer(b"".join(row[1] for row in rows), np.float32).reshape(len(rows), *task.input.shape)
    check_inputs(inputs, [identifier for identifier, _ in rows], task)
    features = compute(inputs)
    for (identifier, _), values in zip(rows, features, strict=True):
        if not np.isfinite(values).all():
            raise FeaturesError(f"sample {identifier} of {task.task}: its features contain NaN or infinity")
    # A sample may have been deleted meanwhile to make room; its features would never be deleted.
    insert = "INSERT OR REPLACE INTO features SELECT id, ?, ? FROM samples WHERE id = ?"
    kept = [
        (task.backbone_hash, values.tobytes(), identifier)
        for (identifier, _), values in zip(rows, features, strict=True)
    ]
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(insert, kept)
