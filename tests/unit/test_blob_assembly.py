"""A blob comes whole out of chunks in any order, repeated and mixed with lies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.blob_assembly import BlobAssembly
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import BlobChunk
from fleet_protocol.limits import MAX_BLOB_BYTES, MAX_CHUNK_BYTES


def chunks_of(blob: bytes) -> list[tuple[int, BlobChunk]]:
    starts = range(0, max(1, len(blob)), MAX_CHUNK_BYTES)
    return [(n, BlobChunk(len(blob), blob[start : start + MAX_CHUNK_BYTES])) for n, start in enumerate(starts)]


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


BLOB = pattern(2 * MAX_CHUNK_BYTES + 5)

sizes = st.sampled_from(
    [0, 1, MAX_CHUNK_BYTES - 1, MAX_CHUNK_BYTES, MAX_CHUNK_BYTES + 1, 3 * MAX_CHUNK_BYTES, 4 * MAX_CHUNK_BYTES - 1]
)


@given(sizes.map(pattern), st.data())
def test_any_order_with_repetitions_makes_the_blob(blob, data):
    chunks = chunks_of(blob)
    repeated = data.draw(st.lists(st.sampled_from(chunks)))
    assembly, still_missing = BlobAssembly(), {number for number, _ in chunks}
    for number, chunk in data.draw(st.permutations(chunks + repeated)):
        assert assembly.add(number, chunk) == (number in still_missing)
        still_missing.discard(number)
        assert assembly.missing == sorted(still_missing)
        assert assembly.complete == (None if still_missing else blob)


def test_nothing_is_missing_by_number_while_the_size_is_unknown():
    assembly = BlobAssembly()
    assert assembly.missing == []
    assert assembly.complete is None


@pytest.mark.parametrize(
    ("number", "chunk", "reason"),
    [
        (0, BlobChunk(MAX_BLOB_BYTES + 1, bytes(MAX_CHUNK_BYTES)), Reason.TOO_LARGE),
        (0, BlobChunk(-1, b""), Reason.TOO_LARGE),
        (0, BlobChunk(len(BLOB) + 1, BLOB[:MAX_CHUNK_BYTES]), Reason.MALFORMED),
        (0, BlobChunk(len(BLOB), BLOB[: MAX_CHUNK_BYTES - 1]), Reason.MALFORMED),
        (0, BlobChunk(len(BLOB), BLOB[: MAX_CHUNK_BYTES + 1]), Reason.MALFORMED),
        (2, BlobChunk(len(BLOB), b"1234"), Reason.MALFORMED),
        (3, BlobChunk(len(BLOB), b""), Reason.MALFORMED),
        (-1, BlobChunk(len(BLOB), bytes(MAX_CHUNK_BYTES)), Reason.MALFORMED),
        (10**9, BlobChunk(len(BLOB), b""), Reason.MALFORMED),
    ],
)
def test_chunk_that_contradicts_is_refused_and_costs_nothing(number, chunk, reason):
    assembly = BlobAssembly()
    first, *others = chunks_of(BLOB)
    assembly.add(*first)
    with pytest.raises(ProtocolError) as caught:
        assembly.add(number, chunk)
    assert caught.value.reason is reason
    for other in others:
        assembly.add(*other)
    assert assembly.complete == BLOB


@pytest.mark.parametrize("blob", [b"", pattern(MAX_CHUNK_BYTES)], ids=["empty", "exactly one chunk"])
def test_empty_chunk_behind_the_end_completes_nothing(blob):
    assembly = BlobAssembly()
    with pytest.raises(ProtocolError):
        assembly.add(1, BlobChunk(len(blob), b""))
    assert assembly.complete is None
