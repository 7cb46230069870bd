"""What is logged over and over is left out, and counted; nothing else is."""

import logging

import pytest

from fleet_host.log_limit import MAX_EVENTS, RepetitionFilter
from fleet_host.log_lines import log_line
from fleet_host.rate_limit import TokenBucket

BURST = 3
INTERVAL_SECONDS = 10.0


class Log:
    """A filter under a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self._filter = RepetitionFilter(TokenBucket(INTERVAL_SECONDS, BURST), lambda: self.now)

    def write(self, text: str, level: int = logging.WARNING, name: str = "edge_agent") -> str:
        """What becomes of a line; empty where it is left out."""
        record = logging.LogRecord(name, level, "", 0, text, None, None)
        return record.getMessage() if self._filter.filter(record) else ""


@pytest.fixture
def log():
    return Log()


def refused(reason: str, **fields: object) -> str:
    return log_line("message_refused", reason=reason, **fields)


def test_same_event_and_reason_are_written_a_few_times_and_then_now_and_again_with_the_number_left_out(log):
    written = [bool(log.write(refused("malformed", topic=f"t{number}"))) for number in range(1000)]
    assert written == [True] * BURST + [False] * (1000 - BURST)
    log.now = INTERVAL_SECONDS
    assert log.write(refused("malformed", topic="a")) == refused("malformed", topic="a") + f" left_out={1000 - BURST}"
    assert log.write(refused("malformed", topic="a")) == ""


def test_flood_hides_no_other_reason_event_level_or_library(log):
    for _ in range(1000):
        log.write(refused("malformed"))
        log.write("something", name="library")
    assert log.write(refused("unknown_key"))
    assert log.write(log_line("guard_refused", reason="63.5 MiB of free memory"))
    assert log.write(refused("malformed"), level=logging.ERROR)
    assert log.write("something", name="other library")


def test_words_in_place_of_a_reason_make_no_kind_of_their_own(log):
    for number in range(1000):
        log.write(log_line("round_failed", reason=f"worker {number} ended"))
    assert log.write(log_line("round_failed", reason="worker 1000 ended")) == ""


def test_normal_operation_is_always_written(log):
    assert all(log.write(log_line("round_spooled", task="digits"), level=logging.INFO) for _ in range(1000))


def test_invented_events_take_no_memory_and_leave_no_room_for_a_flood(log):
    written = [log.write(f"event=e{number}") for number in range(10 * MAX_EVENTS)]
    assert len([line for line in written if line]) == MAX_EVENTS + BURST
    assert len(log._filter._full_at) <= MAX_EVENTS + 1
    log.now = 10 * INTERVAL_SECONDS
    assert log.write("event=new")
