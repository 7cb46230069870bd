"""Work that a reason stops: it cleans up first, its own result and error pass, and who cancels it cancels the work."""

import asyncio

import pytest

from edge_agent.shell.learning.stoppable import StoppedError, run_unless
from tests.support.waiting import DEADLINE_SECONDS

OFTEN = 0.001


class Work:
    """Runs until it is let go, and notes how it ended."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun = asyncio.Event()
        self.was_cancelled = False

    async def run(self) -> str:
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # cleans up
            self.was_cancelled = True
            raise
        return "trained"


async def test_reason_stops_the_work_once_it_has_cleaned_up():
    work, reasons = Work(), iter([None, None, "80 degrees"])
    async with asyncio.timeout(DEADLINE_SECONDS):
        with pytest.raises(StoppedError, match="80 degrees"):
            await run_unless(work.run(), lambda: next(reasons), every_seconds=OFTEN)
    assert work.was_cancelled


async def test_work_that_nothing_speaks_against_ends_with_its_result():
    work, asked = Work(), []

    def nothing() -> None:
        asked.append(None)
        if len(asked) == 3:
            work.go.set()

    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await run_unless(work.run(), nothing, every_seconds=OFTEN) == "trained"
    assert not work.was_cancelled


async def test_error_of_the_work_passes():
    async def fail() -> None:
        raise ValueError("no room")

    with pytest.raises(ValueError, match="no room"):
        await run_unless(fail(), lambda: None, every_seconds=OFTEN)


async def test_agent_that_ends_ends_the_work_with_it():
    work = Work()
    async with asyncio.timeout(DEADLINE_SECONDS):
        running = asyncio.create_task(run_unless(work.run(), lambda: None, every_seconds=DEADLINE_SECONDS))
        await work.begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert work.was_cancelled
