"""One browser's stream of server-sent events, out of the feed."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Final

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from broker_coordinator.dashboard.feed import MOST_STREAMS, Feed, TooManyStreamsError

SEND_SECONDS: Final = 20.0
"""A reader that takes nothing for so long has left, whatever its connection says."""
LIFE_SECONDS: Final = 3600.0
"""Then it ends; a browser asks again by itself, and is let in again or not."""
RETRY_MILLISECONDS: Final = 5000


class EventStream:
    """Answers a request with the events of `feed`, until whoever asked has left."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One stream."""
        if scope["method"] != "GET":
            await JSONResponse({"error": "a stream of events is for GET alone"}, 405)(scope, receive, send)
            return
        try:
            with self._feed.stream() as events:
                await _first_of(_until_left(receive), _send_all(events, send))
        except TooManyStreamsError:
            words = f"{MOST_STREAMS} event streams are open; close other pages, and load this one again"
            await JSONResponse({"error": words}, 503, {"retry-after": "10"})(scope, receive, send)


async def _first_of(leaving: Coroutine[None, None, None], sending: Coroutine[None, None, None]) -> None:
    tasks = [asyncio.create_task(leaving), asyncio.create_task(sending)]
    try:
        done, _ = await asyncio.wait(tasks, timeout=LIFE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_all(events: AsyncIterator[bytes], send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    first = f"retry: {RETRY_MILLISECONDS}\n\n".encode()
    try:
        await send({"type": "http.response.body", "body": first, "more_body": True})
        async for event in events:
            async with asyncio.timeout(SEND_SECONDS):
                await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    except TimeoutError:
        return
