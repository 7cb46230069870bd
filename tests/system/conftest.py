"""A fixture that the tests of split learning share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.split_fleet import SplitFleet


@pytest.fixture
def fleet(tmp_path: Path, broker: Broker) -> Iterator[SplitFleet]:
    """Of devices that leave the middle to helpers; a coordinator is there once the test has begun it."""
    fleet = SplitFleet(tmp_path, broker)
    yield fleet
    fleet.end()
