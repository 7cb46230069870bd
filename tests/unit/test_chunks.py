"""Chunks: however many there are, they are the whole blob, and each is as long as its number says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol.chunks import chunk_bytes, chunk_count, chunk_length
from fleet_protocol.limits import MAX_CHUNK_BYTES

EDGES = [0, 1, MAX_CHUNK_BYTES - 1, MAX_CHUNK_BYTES, MAX_CHUNK_BYTES + 1, 3 * MAX_CHUNK_BYTES]


@given(st.sampled_from(EDGES) | st.integers(0, 5 * MAX_CHUNK_BYTES))
def test_chunks_are_the_whole_blob(total):
    blob = bytes(number % 251 for number in range(total))
    chunks = [chunk_bytes(blob, number) for number in range(chunk_count(total))]
    assert b"".join(chunks) == blob
    assert [len(chunk) for chunk in chunks] == [chunk_length(total, number) for number in range(len(chunks))]


@pytest.mark.parametrize("total", EDGES)
def test_nothing_is_in_a_chunk_beyond_the_last(total):
    assert chunk_length(total, chunk_count(total)) == 0
    assert all(chunk_length(total, number) == MAX_CHUNK_BYTES for number in range(chunk_count(total) - 1))
