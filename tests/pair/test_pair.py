"""Whatever the wire, the power and the disks do, nothing is lost between agent and coordinator, or counts twice."""

import logging

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.pair.machine import Pair

EXAMPLES = 50
"""Others in every run: a fault that is there is met within days, and planted ones within 100."""


def test_nothing_is_lost_nothing_counts_twice_and_outboxes_empty(caplog) -> None:
    run_state_machine_as_test(Pair, settings=settings(max_examples=EXAMPLES))
    failed = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert failed == [], "the coordinator went on after a mistake of its own"
