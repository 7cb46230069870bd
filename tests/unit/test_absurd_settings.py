"""Every setting of agent.toml and coordinator.toml refuses what is absurd, in one short line that names it.

The settings are found in the structs, so a new one is tried by itself.
"""

import json
import math
from collections.abc import Iterator
from copy import deepcopy
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from broker_coordinator.configuration import CoordinatorConfiguration
from edge_agent.configuration import AgentConfiguration
from edge_agent.sources.folder import FolderSettings
from edge_agent.sources.mqtt_topic import MqttTopicSettings
from fleet_host.configuration_file import parse_with_paths
from fleet_protocol.errors import ConfigurationError

BROKER = {"host": "broker", "tls": {"authority": "ca.crt"}}
DOCUMENTS: dict[type[msgspec.Struct], dict[str, Any]] = {
    AgentConfiguration: {
        "fleet": "home",
        "device": "pi",
        "key_file": "device.key",
        "coordinator_key": "ab" * 32,
        "state_folder": "state",
        "sample_socket": "samples.sock",
        "broker": BROKER,
        "tasks": [{"name": "digits"}],
        "guards": {"watts": 3.0},
        "sources": [{"kind": "folder", "task": "digits"}],
        "analytics": {"fields": [{"task": "digits", "field": "label"}]},
        "privacy": {
            "at_least": "samples",
            "budgets": [{"name": "guests", "epsilon": 1.0, "task": "digits", "labels": [1]}],
        },
        "texts": [{"name": "rooms", "file": "rooms.txt"}],
    },
    CoordinatorConfiguration: {
        "fleet": "home",
        "key_file": "coordinator.key",
        "database": "coordinator.db",
        "broker": BROKER,
        "tasks": [{"bundle": "digits"}],
        "evaluations": [{"task": "digits", "file": "digits.npz"}],
    },
    FolderSettings: {"path": "/srv/inbox"},
    MqttTopicSettings: {"topic": "a/+", "broker": BROKER, "predictions_topic": "predictions"},
}
ABSURD = [math.nan, math.inf, -math.inf, 1e300, -1, 2**63, "x" * 100_000, [], [[1]], {"absurd": 1}, "\0", "a\nb"]
MAY_BE_EMPTY = {"series", "style"}
"""Texts that say something without a character."""
MAX_LINE_CHARACTERS = 500

Place = tuple[str | int, ...]
LISTS = (inspect.ListType, inspect.VarTupleType)


def leaves(found: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every setting, with its type; of a list its first item, of a table of free keys the whole."""
    if isinstance(found, inspect.Metadata):
        if not isinstance(found.type, LISTS):
            yield place, found
            return
        found = found.type
    if isinstance(found, inspect.UnionType):
        tables = [each for each in found.types if isinstance(each, inspect.StructType)]
        if tables:
            yield from leaves(tables[0], place)
            return
    if isinstance(found, inspect.StructType):
        for field in found.fields:
            yield from leaves(field.type, (*place, field.encode_name))
    elif isinstance(found, LISTS) and isinstance(found.item_type, inspect.StructType):
        yield from leaves(found.item_type, (*place, 0))
    else:
        yield place, found
        if isinstance(found, LISTS):
            yield (*place, 0), found.item_type


SETTINGS = [(shape, place) for shape in DOCUMENTS for place, _ in leaves(inspect.type_info(shape))]


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value) if isinstance(value, str | bool) else repr(value)


def document_with(shape: type[msgspec.Struct], place: Place, value: object) -> str:
    document: Any = deepcopy(DOCUMENTS[shape])
    table = document
    for step, following in pairwise(place):
        if isinstance(table, dict):
            table.setdefault(step, {} if isinstance(following, str) else [None])
        table = table[step]
    table[place[-1]] = value
    return "".join(f"{key} = {toml(each)}\n" for key, each in document.items())


def refusal_of(shape: type[msgspec.Struct], place: Place, value: object) -> str:
    """Empty where the value is taken."""
    try:
        parse_with_paths(document_with(shape, place, value).encode(), shape, "the file")
    except ConfigurationError as error:
        return str(error)
    return ""


def name_of(setting: tuple[type[msgspec.Struct], Place]) -> str:
    shape, place = setting
    return f"{shape.__name__}.{'.'.join(map(str, place))}"


@pytest.mark.parametrize("setting", SETTINGS, ids=name_of)
def test_absurd_value_is_refused_in_one_short_line_that_names_the_setting(setting):
    shape, place = setting
    values = [value for value in ABSURD if not (isinstance(value, list | dict) and takes(shape, place, value))]
    values += [] if place[-1] in MAY_BE_EMPTY else [""]
    for value in values:
        said = refusal_of(shape, place, value)
        shown = repr(value)[:40]
        assert said, f"{shown} is taken"
        assert len(said) <= MAX_LINE_CHARACTERS, f"{shown}: {len(said)} characters"
        assert "\n" not in said, f"{shown}: {said}"
        assert named(place) in said, f"{shown}: {said}"


def named(place: Place) -> str:
    """An item by its list."""
    return next(step for step in reversed(place) if isinstance(step, str))


def takes(shape: type[msgspec.Struct], place: Place, value: object) -> bool:
    """Whether a list or a table may stand there: an empty one, or one of free keys, as of `settings`."""
    found = dict(leaves(inspect.type_info(shape)))[place]
    kinds = {list: LISTS, dict: inspect.DictType}
    return isinstance(found, kinds[type(value)]) and (not value or isinstance(found, inspect.DictType))


def test_documents_that_are_tried_are_whole():
    for shape, document in DOCUMENTS.items():
        text = "".join(f"{key} = {toml(value)}\n" for key, value in document.items())
        assert isinstance(parse_with_paths(text.encode(), shape, "the file"), shape)
