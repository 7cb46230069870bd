"""The references of configuration files are what the code reads, and every key and table in them has words."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tests.support.reference.__main__ import FOLDER, documents
from tests.support.reference.commands import programs
from tests.support.reference.configuration import REFERENCES, tables, words_of

DOCUMENTS = documents()
STRUCTS = dict.fromkeys(
    shape for _, files in REFERENCES.values() for file in files for _, shape in tables(file.shape, "")
)
"""Each once, in one order in every process that collects tests."""


@pytest.mark.parametrize("name", DOCUMENTS)
def test_reference_is_what_the_code_says(name):
    assert (FOLDER / name).read_text() == DOCUMENTS[name], "make it: python -m tests.support.reference"


@pytest.mark.parametrize("program", [command.name for command in programs()])
def test_every_command_and_all_that_it_takes_has_words(program):
    (found,) = (command for command in programs() if command.name == program)
    waiting = [found]
    while waiting:
        command = waiting.pop()
        waiting += command.below
        assert command.words, command.name
        assert [each.written for each in command.takes if not each.words] == [], command.name


@pytest.mark.parametrize("shape", STRUCTS, ids=lambda shape: shape.__qualname__)
def test_every_table_and_every_key_has_words(shape):
    assert shape.__doc__
    tables_in_it = {path.strip("[]") for path, each in tables(shape, "") if each is not shape}
    assert [key for key, words in words_of(shape).items() if not words and key not in tables_in_it] == []


def integers_in(found: Any) -> Iterator[msgspec.inspect.IntType]:
    if isinstance(found, msgspec.inspect.IntType):
        yield found
    for name in ("type", "item_type"):
        if (inner := getattr(found, name, None)) is not None:
            yield from integers_in(inner)
    for inner in getattr(found, "types", ()):
        yield from integers_in(inner)


@pytest.mark.parametrize("shape", STRUCTS, ids=lambda shape: shape.__qualname__)
def test_every_whole_number_that_a_person_writes_has_both_limits(shape):
    for field in msgspec.inspect.type_info(shape).fields:
        for number in integers_in(field.type):
            assert (number.ge, number.gt) != (None, None), field.name
            assert number.le is not None and number.le < 2**63, field.name
