"""docs/architecture.md shows what the imports are."""

import re

import pytest

from tests.support.architecture import DOCUMENT, arrows, circles, drawn, picture

ROOT = DOCUMENT.parents[1]


@pytest.fixture(scope="module")
def imports():
    return arrows()


def test_picture_shows_the_imports(imports):
    assert drawn(DOCUMENT.read_text(encoding="utf-8")) == picture(imports), (
        "draw it: python -m tests.support.architecture"
    )


def test_no_room_leads_back_to_itself(imports):
    assert circles(imports) == []


def test_files_that_the_walk_names_exist():
    named = re.findall(
        r"`((?:edge_agent|broker_coordinator|fleet_protocol|fleet_host|bundle_runtime|workbench)/[\w./]*)`",
        DOCUMENT.read_text(encoding="utf-8"),
    )
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []
