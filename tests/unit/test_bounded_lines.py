"""Lines come whole, whatever pieces they arrive in; unfinished ones are bounded in bytes and in time."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.sources.bounded_lines import LINE_SECONDS, MAX_LINE_BYTES, HeldBytes, LineRefusedError, lines_of
from tests.support.jumping_clock import run


async def read(pieces: list[bytes], held: HeldBytes) -> list[bytes]:
    """Each piece arrives once the one before was read."""
    reader = asyncio.StreamReader()

    async def feed() -> None:
        for piece in pieces:
            reader.feed_data(piece)
            await asyncio.sleep(0)
        reader.feed_eof()

    async with asyncio.TaskGroup() as group:
        group.create_task(feed())
        return [line async for line in lines_of(reader, held)]


@given(st.lists(st.binary(max_size=20)))
def test_lines_are_those_that_were_sent_and_nothing_stays_held(pieces):
    held = HeldBytes()
    sent = b"".join(pieces).split(b"\n")
    assert asyncio.run(read(pieces, held)) == (sent if sent[-1] else sent[:-1])
    assert held._held == 0


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_line_that_is_too_long_is_refused_and_gives_its_bytes_back(end):
    held = HeldBytes()
    with pytest.raises(BaseExceptionGroup) as caught:
        asyncio.run(read([b"x" * (MAX_LINE_BYTES - 1), b"xx" + end], held))
    assert caught.group_contains(LineRefusedError, match=f"line exceeds {MAX_LINE_BYTES} bytes")
    assert held._held == 0


def test_line_that_trickles_in_is_refused_and_silence_between_lines_is_not():
    async def scenario():
        reader = asyncio.StreamReader()
        lines = lines_of(reader, HeldBytes())
        waiting = asyncio.ensure_future(anext(lines))
        await asyncio.sleep(100 * LINE_SECONDS)
        reader.feed_data(b"one\n")
        assert await waiting == b"one"
        waiting = asyncio.ensure_future(anext(lines))
        await asyncio.sleep(100 * LINE_SECONDS)
        began = asyncio.get_running_loop().time()
        while not waiting.done():
            reader.feed_data(b"x")
            await asyncio.sleep(LINE_SECONDS / 10)
        with pytest.raises(LineRefusedError, match="did not end within 60 s"):
            await waiting
        assert asyncio.get_running_loop().time() - began <= 1.2 * LINE_SECONDS

    run(scenario())
