"""docs/agent.md shows what the table of transitions is."""

from tests.support.lifecycle import DOCUMENT, drawn, picture


def test_picture_shows_the_table():
    assert drawn(DOCUMENT.read_text(encoding="utf-8")) == picture(), "draw it: python -m tests.support.lifecycle"
