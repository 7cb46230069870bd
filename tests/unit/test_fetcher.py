"""A fetch ends: whole, or after a number of attempts, whatever somebody repeats meanwhile."""

import asyncio
import contextlib

import pytest

from edge_agent.shell.versions.fetcher import CHUNK_SECONDS, FETCH_ATTEMPTS, Fetcher, NotFetchedError
from fleet_protocol.kinds import BlobChunk
from fleet_protocol.limits import MAX_CHUNK_BYTES
from tests.support.jumping_clock import run

BLOB = "ab" * 32
CHUNKS = 3


def chunk_of(content: bytes) -> BlobChunk:
    return BlobChunk(CHUNKS * MAX_CHUNK_BYTES, content * MAX_CHUNK_BYTES)


@contextlib.asynccontextmanager
async def listening(_topic_filter: str):
    yield


def test_repeated_chunk_holds_no_fetch_open():
    async def scenario():
        asked = []

        async def ask(request, _task):
            asked.append(request.chunks)

        fetcher = Fetcher("greenhouse", listening, ask)
        fetching = asyncio.create_task(fetcher.fetch(BLOB))
        clock = asyncio.get_running_loop().time
        while not fetching.done():
            await asyncio.sleep(0.8 * CHUNK_SECONDS)
            fetcher.receive_chunk(BLOB, 0, chunk_of(b"0"))
        with pytest.raises(NotFetchedError):
            await fetching
        assert asked == [[], [1, 2], [1, 2], [1, 2]]
        assert clock() <= (FETCH_ATTEMPTS + 2) * CHUNK_SECONDS

    run(scenario())


def test_new_chunk_gives_the_fetch_more_time():
    async def scenario():
        async def ask(_request, _task):
            pass

        fetcher = Fetcher("greenhouse", listening, ask)
        fetching = asyncio.create_task(fetcher.fetch(BLOB))
        for number in range(CHUNKS):
            await asyncio.sleep(0.8 * CHUNK_SECONDS)
            fetcher.receive_chunk(BLOB, number, chunk_of(b"%d" % number))
        assert await fetching == b"".join(b"%d" % number * MAX_CHUNK_BYTES for number in range(CHUNKS))

    run(scenario())
