"""A connected device asks until it has heard of each task whose manifest it waits for, less and less often."""

import asyncio
import contextlib

from edge_agent.shell.connection.presence import FIRST_MANIFEST_SECONDS, LAST_MANIFEST_SECONDS, PresenceKeeper
from tests.support.jumping_clock import run


class Published:
    """A keeper, and when it has published."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.lacks = True
        self.keeper = PresenceKeeper(self._publish, lambda: self.lacks)

    async def _publish(self) -> None:
        self.times.append(asyncio.get_running_loop().time())

    @contextlib.asynccontextmanager
    async def connected(self):
        self.lacks = True
        self.times.clear()
        began = asyncio.get_running_loop().time()
        keeping = asyncio.create_task(self.keeper.keep())
        yield lambda: [moment - began for moment in self.times]
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping


def test_device_that_lacks_no_manifest_publishes_once():
    async def scenario():
        published = Published()
        async with published.connected() as times:
            published.lacks = False
            await asyncio.sleep(10 * LAST_MANIFEST_SECONDS)
            assert times() == [0]

    run(scenario())


def test_device_that_lacks_a_manifest_asks_again_until_it_comes_and_on_each_connection_anew():
    async def scenario():
        published = Published()
        first = FIRST_MANIFEST_SECONDS
        for _ in range(2):
            async with published.connected() as times:
                await asyncio.sleep(8 * first)
                assert times() == [0, first, 3 * first, 7 * first]
                published.lacks = False
                await asyncio.sleep(10 * LAST_MANIFEST_SECONDS)
                assert times() == [0, first, 3 * first, 7 * first]

    run(scenario())


def test_presence_that_changes_is_published_again():
    async def scenario():
        published = Published()
        async with published.connected() as times:
            published.lacks = False
            for _ in range(2):
                await asyncio.sleep(30)
                published.keeper.publish_again()
            await asyncio.sleep(10 * LAST_MANIFEST_SECONDS)
            assert times() == [0, 30, 60]

    run(scenario())


def test_device_whose_task_nobody_serves_asks_seldom():
    async def scenario():
        published = Published()
        async with published.connected() as times:
            await asyncio.sleep(100 * LAST_MANIFEST_SECONDS)
            assert len(times()) < 110

    run(scenario())


def test_device_that_begins_to_wait_for_a_manifest_asks_after_the_first_wait_again():
    async def scenario():
        published = Published()
        first = FIRST_MANIFEST_SECONDS
        async with published.connected() as times:
            published.lacks = False
            await asyncio.sleep(1000)
            published.lacks = True
            published.keeper.manifest_awaited()
            await asyncio.sleep(4 * first)
            published.lacks = False
            await asyncio.sleep(10 * LAST_MANIFEST_SECONDS)
            assert times() == [0, 1000 + first, 1000 + 3 * first]

    run(scenario())
