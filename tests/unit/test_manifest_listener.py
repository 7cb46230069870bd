"""A device hears of a task's versions while one is needed, and sleeps without that subscription."""

import asyncio
import contextlib

import pytest

from edge_agent.shell.versions.manifest_listener import (
    MANIFEST_SECONDS,
    PREDICTION_SECONDS,
    RENEW_SECONDS,
    ManifestListener,
)
from tests.support.jumping_clock import run

DIGITS, GESTURES = "edgeflock/v1/home/task/digits", "edgeflock/v1/home/task/gestures"


class Broker:
    """What it has retained comes to whoever subscribes."""

    def __init__(self, retained: bool) -> None:
        self.retained = retained
        self.subscribed: list[str] = []
        self.all: list[str] = []
        self.needed: set[str] = set()
        self.listener = ManifestListener(
            "home", ["digits", "gestures"], self, is_needed=self.needed.__contains__, awaited=lambda: None
        )

    async def subscribe(self, topic: str) -> None:
        self.subscribed.append(topic)
        self.all.append(topic)
        if self.retained:
            self.listener.heard_of(topic.rsplit("/", 1)[1])

    async def unsubscribe(self, topic: str) -> None:
        self.subscribed.remove(topic)

    @contextlib.asynccontextmanager
    async def connected(self, *, has_heard: bool = True):
        keeping = asyncio.create_task(self.listener.keep())
        await asyncio.sleep(1)
        if has_heard:
            self.listener.heard_of("digits")
            self.listener.heard_of("gestures")
            await asyncio.sleep(1)
            self.all.clear()
        yield
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping


def test_device_that_connects_hears_of_each_task_once_and_sleeps_without_that_subscription():
    async def scenario():
        broker = Broker(retained=True)
        async with broker.connected(has_heard=False):
            assert (broker.all, broker.subscribed) == ([DIGITS, GESTURES], [])
            broker.listener.look_again()
            await asyncio.sleep(1)
            assert broker.all == [DIGITS, GESTURES]

    run(scenario())


def test_invited_device_looks_at_the_manifest_once_and_stays_until_it_has_come():
    async def scenario():
        broker = Broker(retained=False)
        async with broker.connected():
            broker.listener.look("digits")
            await asyncio.sleep(1000)
            assert broker.subscribed == [DIGITS]
            assert broker.listener.lacks_any
            broker.listener.heard_of("digits")
            await asyncio.sleep(1)
            assert (broker.all, broker.subscribed) == ([DIGITS], [])

    run(scenario())


def test_manifest_that_was_lost_is_asked_for_again_where_every_version_counts_and_not_too_often():
    """A helper stays subscribed; what it could not store does not come by itself a second time."""

    async def scenario():
        broker = Broker(retained=False)
        broker.needed.add("digits")
        async with broker.connected():
            for _ in range(10):
                broker.listener.look("digits")
                await asyncio.sleep(1)
            assert broker.all == [DIGITS] * 2
            broker.listener.heard_of("digits")
            await asyncio.sleep(1000)
            assert broker.all == [DIGITS] * 2

    run(scenario())


def test_manifest_that_was_dropped_on_its_way_comes_once_the_subscription_is_renewed():
    """As to a device alone, which waits for the version that its own update made."""

    async def scenario():
        broker = Broker(retained=True)
        broker.needed.add("digits")
        async with broker.connected():
            await asyncio.sleep(RENEW_SECONDS / 2)
            broker.listener.heard_of("digits")
            await asyncio.sleep(RENEW_SECONDS - 10)
            assert broker.all == [], "it has come within that time"
            await asyncio.sleep(RENEW_SECONDS)
            assert broker.all == [DIGITS]
            assert broker.subscribed.count(DIGITS) == len(broker.subscribed), "and what nobody needs is let alone"
            broker.needed.clear()
            broker.listener.look_again()
            await asyncio.sleep(10 * RENEW_SECONDS)
            assert broker.all == [DIGITS]

    run(scenario())


def test_manifest_is_taken_for_a_round_and_heard_no_longer_after_it():
    async def scenario():
        broker = Broker(retained=True)
        async with broker.connected():
            began = asyncio.get_running_loop().time()
            await broker.listener.take("digits")
            assert asyncio.get_running_loop().time() == began, "what is retained comes at once"
            await asyncio.sleep(1)
            assert (broker.all, broker.subscribed) == ([DIGITS], [])

    run(scenario())


def test_manifest_that_does_not_come_delays_a_round_and_no_more():
    async def scenario():
        broker = Broker(retained=False)
        async with broker.connected():
            began = asyncio.get_running_loop().time()
            taking = asyncio.create_task(broker.listener.take("digits"))
            await asyncio.sleep(1)
            assert broker.listener.lacks_any, "so that the presence asks for it"
            await taking
            assert asyncio.get_running_loop().time() - began == MANIFEST_SECONDS
            await asyncio.sleep(1)
            assert not broker.listener.lacks_any
            assert broker.subscribed == []

    run(scenario())


def test_round_without_a_connection_waits_for_no_manifest():
    async def scenario():
        began = asyncio.get_running_loop().time()
        await Broker(retained=True).listener.take("digits")
        assert asyncio.get_running_loop().time() == began

    run(scenario())


def test_device_that_waits_for_a_version_stays_subscribed_until_it_does_not():
    async def scenario():
        broker = Broker(retained=True)
        broker.needed.add("gestures")
        async with broker.connected():
            assert broker.subscribed == [GESTURES]
            broker.retained = False
            await broker.listener.take("gestures")
            await asyncio.sleep(1)
            assert broker.subscribed == [GESTURES]
            broker.needed.clear()
            broker.listener.look_again()
            await asyncio.sleep(1)
            assert (broker.all, broker.subscribed) == ([], [])

    run(scenario())


def test_each_connection_subscribes_anew():
    async def scenario():
        broker = Broker(retained=False)
        broker.needed.add("digits")
        for _ in range(2):
            async with broker.connected(has_heard=False):
                assert broker.listener.lacks_any
                broker.listener.heard_of("digits")
                broker.listener.heard_of("gestures")
                assert not broker.listener.lacks_any
        assert broker.all == [DIGITS, GESTURES, DIGITS, GESTURES]

    run(scenario())


@pytest.mark.parametrize("retained", [True, False])
def test_predictions_look_for_a_version_once_in_a_while(retained):
    async def scenario():
        broker = Broker(retained=retained)
        async with broker.connected():
            await broker.listener.take_to_predict("digits")
            assert broker.all == [], "it was heard of just now"
            for looks in (1, 2):
                await asyncio.sleep(PREDICTION_SECONDS)
                for _ in range(3):
                    await broker.listener.take_to_predict("digits")
                    await asyncio.sleep(1)
                assert len(broker.all) == looks

    run(scenario())
