"""Joins topics that have one value each to readings, in which the topics name the values. Pure.

ESPHome publishes a topic for each sensor, so do Home Assistant's statestream and Zigbee2MQTT's attribute output. The
values that come within a while of the first are one reading, together with the last known ones of what has not changed.
Times are seconds on any one clock.
"""

from collections.abc import Set
from typing import Final

import msgspec

from edge_agent.preparation.refusal import ReadingRefusedError, shown
from fleet_protocol.document_errors import NOT_JSON
from fleet_protocol.limits import KIB, MAX_READING_FIELDS

MAX_VALUE_BYTES = 1 * KIB
"""Of one topic's message."""

MISSING: Final = frozenset({"", "nan", "none", "null", "unavailable", "unknown"})
"""Words, in small letters, with which sensors say that they have no value now."""


def name_in(topic_filter: str, topic: str) -> str:
    """What the wildcards of a filter stand for in a topic, several levels with `/` between; the topic where there are
    none.
    """
    names: list[str] = []
    levels = topic.split("/")
    for place, level in enumerate(topic_filter.split("/")):
        if level == "#":
            names += levels[place:]
        elif level == "+":
            names.append(levels[place])
    return "/".join(names) or topic


class JoinedTopics:
    """The last value of each topic of a filter. One older than `kept_seconds` is missing."""

    def __init__(self, topic_filter: str, kept_seconds: float) -> None:
        self._filter = topic_filter
        self._kept_seconds = kept_seconds
        self._values: dict[str, tuple[object, float]] = {}

    def put(self, topic: str, payload: bytes, now: float, wanted: Set[str]) -> bool:
        """Take a message; False where its value is none of those that are `wanted`, which are all where it is empty.

        Raises:
            ReadingRefusedError: it is too long, or there are too many.
        """
        name = name_in(self._filter, topic)
        if wanted and name not in wanted:
            return False
        if len(payload) > MAX_VALUE_BYTES:
            words = f"{len(payload)} bytes on {shown(topic)}; a topic that is joined has one value, of at most"
            raise ReadingRefusedError("too_long", f"{words} {MAX_VALUE_BYTES}")
        if name not in self._values and len(self._values) >= MAX_READING_FIELDS:
            words = f"{shown(topic)}: more than {MAX_READING_FIELDS} topics are joined; name those to take under fields"
            raise ReadingRefusedError("too_many", words)
        self._values[name] = _value(payload), now
        return True

    def reading(self, now: float) -> dict[str, object]:
        """The reading that they make now."""
        return {name: value for name, (value, at) in self._values.items() if now - at <= self._kept_seconds}


def _value(payload: bytes) -> object:
    """A JSON value, else a text; None for a word that says that there is none."""
    text = payload.decode(errors="replace").strip()
    if text.lower() in MISSING:
        return None
    try:
        return msgspec.json.decode(payload)
    except NOT_JSON:
        return text
