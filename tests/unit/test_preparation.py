"""Files are made one at a time, for a share of the time, and a few of each device wait."""

import pytest

from broker_coordinator.serving.preparation import (
    MAX_READY_BYTES,
    MAX_WAITING,
    MAX_WAITING_OF_DEVICE,
    POLL_SECONDS,
    SHARE,
    Made,
    Preparation,
)
from tests.support.held_executor import HeldExecutor


def made_of(preparation: Preparation, executor: HeldExecutor, now: float) -> Made:
    executor.run_next()
    made = preparation.collect(now)
    assert made is not None
    return made


def test_device_that_asks_for_thousands_holds_up_nobody() -> None:
    executor = HeldExecutor()
    preparation = Preparation(str.encode, executor)
    asked = [preparation.ask(f"invented-{number}", "greedy-pi") for number in range(2000)]
    assert asked.count(True) == MAX_WAITING_OF_DEVICE
    assert preparation.ask("wanted", "honest-pi")
    assert preparation.collect(0.0) is None
    assert len(executor.held) == 1, "one at a time"
    names = []
    now = 0.0
    for _ in range(3):
        made = made_of(preparation, executor, now)
        names.append(made.wanted)
        now = preparation.next_due() or now
        preparation.collect(now)
    assert names == ["invented-0", "invented-1", "wanted"]
    assert preparation.find("wanted") == b"wanted"
    assert preparation.next_due() is None
    assert preparation.ask("invented-7", "greedy-pi"), "what was made has left the queue"


def test_who_asks_for_the_same_waits_for_the_same() -> None:
    executor = HeldExecutor()
    preparation = Preparation(str.encode, executor)
    for device in ("kitchen-pi", "garden-pi"):
        assert preparation.ask("wanted", device)
    preparation.collect(0.0)
    assert preparation.ask("wanted", "attic-pi"), "it is being made"
    made_of(preparation, executor, 0.0)
    assert preparation.collect(9.0) is None
    assert not executor.held


def test_all_devices_together_have_so_many_waiting() -> None:
    preparation = Preparation(str.encode, HeldExecutor())
    asked = [preparation.ask(f"file-{number}", f"pi-{number}") for number in range(MAX_WAITING + 1)]
    assert asked.count(False) == 1


def test_next_file_is_begun_when_its_share_of_the_time_has_come() -> None:
    executor = HeldExecutor()
    preparation = Preparation(str.encode, executor)
    for name in ("first", "second"):
        preparation.ask(name, "kitchen-pi")
    preparation.collect(5.0)
    assert preparation.next_due() == 5.0 + POLL_SECONDS
    made = made_of(preparation, executor, 6.0)
    begins = 6.0 + made.seconds * (1 / SHARE - 1)
    assert preparation.next_due() == pytest.approx(begins)
    preparation.collect(6.0)
    assert not executor.held
    preparation.collect(begins)
    assert len(executor.held) == 1


def test_files_in_memory_are_bounded_and_the_last_one_is_there() -> None:
    executor = HeldExecutor()
    preparation = Preparation(lambda _: bytes(MAX_READY_BYTES // 2), executor)
    for number in range(3):
        preparation.ask(str(number), f"pi-{number}")
        preparation.collect(float(number))
        made_of(preparation, executor, float(number))
    assert [preparation.find(str(number)) is not None for number in range(3)] == [False, True, True]


def test_file_that_can_not_be_made_is_handed_over_with_its_error() -> None:
    executor = HeldExecutor()

    def fail(_: object) -> bytes:
        raise OSError("the disk fails")

    preparation = Preparation(fail, executor)
    preparation.ask("wanted", "kitchen-pi")
    preparation.collect(0.0)
    made = made_of(preparation, executor, 0.0)
    assert made.content is None
    assert str(made.error) == "the disk fails"
    assert preparation.find("wanted") is None
