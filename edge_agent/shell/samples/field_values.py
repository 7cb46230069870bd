"""Reads single values of stored samples for queries, in plain Python: a sleeping agent has no numpy.

SQLite takes the four bytes of each value out of a sample, so that a picture is never read whole. A connection of its
own, which writes nothing, lets this run beside the store.
"""

import math
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from edge_agent.worker.usable_samples import fitting
from fleet_host.wall_clock import FIRST_YEAR
from fleet_protocol.analytics.fields import RECEIVED_AT, FieldPlace, find_field
from fleet_protocol.kinds import Condition, Query
from fleet_protocol.task_description import TaskDescription

FIRST_SECOND: Final = int(datetime(FIRST_YEAR, 1, 1, tzinfo=UTC).timestamp())
"""A sample that came earlier came while the machine did not know the time."""


def field_values(path: Path, task: TaskDescription, query: Query) -> list[float]:
    """The values of the query's field in the samples that its filter and its window take, oldest first.

    A sample that lacks a value which is looked at does not count.

    Raises:
        sqlite3.Error: the file can't be read.
    """
    conditions = (*query.where, *_window(query))
    places = [find_field(field, task) for field in (query.field, *(each.field for each in conditions))]
    return [value for value, *looked_at in _rows(path, task, places) if all(map(_is_met, conditions, looked_at))]


def _window(query: Query) -> list[Condition]:
    """When samples came that count. `until` is outside, so that windows which meet share no sample."""
    if not (query.since or query.until):
        return []
    return [Condition(RECEIVED_AT, max(query.since, FIRST_SECOND), query.until - 1 if query.until else None)]


def _is_met(condition: Condition, value: float) -> bool:
    at_least, at_most = condition.at_least, condition.at_most
    return (at_least is None or value >= at_least) and (at_most is None or value <= at_most)


def _rows(path: Path, task: TaskDescription, places: Sequence[FieldPlace]) -> Iterator[list[float]]:
    """The values at these places in every sample that has all of them."""
    condition, sizes = fitting(task)
    columns = ", ".join(map(_column, places))
    query = (
        f"SELECT {columns} FROM samples LEFT JOIN arrivals ON sample = id WHERE task = ? AND {condition} ORDER BY id"  # noqa: S608
    )
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        for row in connection.execute(query, (task.task, *sizes)):
            values = [_value(stored, place) for stored, place in zip(row, places, strict=True)]
            if not any(map(math.isnan, values)):
                yield values


def _column(place: FieldPlace) -> str:
    match place.store:
        case "received_at":
            return "received_at"
        case "class":
            return "label"
        case "label":
            return f"substr(label, {4 * place.index + 1:d}, {4 * place.width:d})"
    return f"substr(inputs, {4 * place.index + 1:d}, {4 * place.width:d})"


def _value(stored: bytes | int | None, place: FieldPlace) -> float:
    """What is stored as a number; NaN where there is none. Of a category, the place of its 1."""
    if not isinstance(stored, bytes):
        return math.nan if stored is None else float(stored)
    numbers = struct.unpack(f"<{place.width}f", stored)
    if place.width > 1:
        return float(max(range(place.width), key=numbers.__getitem__))
    return place.offset + place.factor * float(numbers[0])
