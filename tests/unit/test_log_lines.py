"""A log line stays one line, and splits into the pairs that it was made of."""

import json
import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_host.log_lines import LineFormatter, log_line

PAIR = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|[^ "=]+)(?: |$)')
names = st.from_regex(r"[a-z_]{1,10}", fullmatch=True).filter(lambda name: name not in {"event", "level"})


def pairs(line: str) -> dict[str, str]:
    """What a reader of logs makes of a line; fails on anything that is not one pair behind the other."""
    found, at = {}, 0
    while at < len(line):
        match = PAIR.match(line, at)
        assert match, line[at:]
        found[match[1]] = json.loads(match[2]) if match[2].startswith('"') else match[2]
        at = match.end()
    return found


@given(st.dictionaries(names, st.text() | st.integers() | st.booleans() | st.none()))
def test_line_is_one_line_and_splits_into_its_pairs(fields):
    line = log_line("version_made", **fields)
    assert len(line.splitlines()) == 1
    assert pairs(line) == {"event": "version_made"} | {name: str(value) for name, value in fields.items()}


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.123456, "0.1235"),
        (1234567.0, "1.235e+06"),
        (float("nan"), "nan"),
        ("digits", "digits"),
        ("kitchen-pi/0", "kitchen-pi/0"),
        ("", '""'),
        ("two words", '"two words"'),
        ('say "no"', r'"say \"no\""'),
        ("a=b", '"a=b"'),
        ("one\ntwo\x1b[2J", r'"one\ntwo\u001b[2J"'),
        ("\x9b2J", r'"\u009b2J"'),
    ],
)
def test_value_that_is_not_one_plain_word_is_quoted(value, written):
    assert log_line("e", field=value) == f"event=e field={written}"


def test_level_and_event_come_first():
    record = logging.LogRecord("any", logging.INFO, "", 0, log_line("version_made", task="digits"), None, None)
    assert LineFormatter().format(record) == "level=INFO event=version_made task=digits"


def test_line_of_a_library_splits_into_pairs_too():
    record = logging.LogRecord("paho", logging.WARNING, "", 0, "%s gone\n=", ("socket",), None)
    line = LineFormatter().format(record)
    assert pairs(line) == {"level": "WARNING", "event": "library_message", "logger": "paho", "text": "socket gone\n="}
