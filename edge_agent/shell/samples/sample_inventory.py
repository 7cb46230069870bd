"""What is in a sample store, read from beside the agent: counts, and the samples themselves for their owner."""

import math
import sqlite3
from array import array
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from edge_agent.shell.samples.dropped_samples import read_dropped
from edge_agent.shell.samples.sample_tables import SAMPLE_BYTES
from edge_agent.shell.samples.unjudged_samples import count_unjudged
from fleet_protocol.errors import ConfigurationError

Row = list[str | int]


class TaskInventory(msgspec.Struct, frozen=True):
    """What is stored of one task. `bytes` are of values and features; `classes` counts labels that are classes.

    `waiting` samples came before the task's schema was known, and are in no other count. `dropped` is how many
    retention has dropped, by rule.
    """

    samples: int
    bytes: int
    with_features: int
    first: int
    last: int
    classes: dict[int, int]
    waiting: int
    dropped: dict[str, int]


def inventory(store: Path, tasks: list[str]) -> dict[str, TaskInventory]:
    """What is stored of each task.

    Raises:
        ConfigurationError: there is no store, or it can't be read.
    """
    with _reading(store) as connection:
        waiting = count_unjudged(connection)
        dropped = read_dropped(connection)
        return {task: _inventory_of(connection, task, waiting[task], dropped.get(task, {})) for task in tasks}


def exported_rows(store: Path, task: str, *, numbers: bool) -> Iterator[Row]:
    """A header, then a row for each sample, oldest first: inputs in their order, then labels; missing values are empty.

    With `numbers`, each sample's is in front.

    Raises:
        ConfigurationError: there is no store, or it can't be read.
    """
    width, columns = -1, -1
    with _reading(store) as connection:
        for number, inputs, label in connection.execute(
            "SELECT id, inputs, label FROM samples WHERE task = ? ORDER BY id", (task,)
        ):
            values = _values(inputs)
            labels: Row = [label] if isinstance(label, int) else _values(label)
            if width < 0:
                width, columns = len(values), len(labels)
                head = [f"input_{place}" for place in range(width)] + [f"label_{place}" for place in range(columns)]
                yield ["sample", *head] if numbers else [*head]
            if (len(values), len(labels)) == (width, columns):  # another was stored before the schema changed
                yield [number, *values, *labels] if numbers else values + labels


def _inventory_of(connection: sqlite3.Connection, task: str, waiting: int, dropped: dict[str, int]) -> TaskInventory:
    counts = (
        f"SELECT COUNT(*), IFNULL(SUM({SAMPLE_BYTES}), 0), IFNULL(MIN(id), 0), IFNULL(MAX(id), 0),"  # noqa: S608 - constants
        " COUNT((SELECT sample FROM features WHERE sample = samples.id)) FROM samples WHERE task = ?"
    )
    samples, size, first, last, with_features = connection.execute(counts, (task,)).fetchone()
    labels = "SELECT label, COUNT(*) FROM samples WHERE task = ? AND typeof(label) = 'integer' GROUP BY label"
    classes = dict(connection.execute(labels, (task,)).fetchall())
    return TaskInventory(samples, size, with_features, first, last, classes, waiting, dropped)


def _values(content: bytes) -> Row:
    """Of float32 in bytes: the shortest decimals that give them back."""
    return ["" if math.isnan(value) else f"{value:.9g}" for value in array("f", content)]


@contextmanager
def _reading(store: Path) -> Iterator[sqlite3.Connection]:
    if not store.exists():
        raise ConfigurationError(f"{store}: there is no sample store yet; the agent makes it when it starts")
    try:
        with closing(sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise ConfigurationError(f"{store}: {error}; run this with the agent's account") from error
