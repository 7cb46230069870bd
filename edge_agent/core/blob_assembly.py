"""Assembles a blob from chunks that arrive in any order, repeated or invalid. Pure."""

from fleet_protocol.chunks import chunk_count, chunk_length
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import BlobChunk
from fleet_protocol.limits import MAX_BLOB_BYTES


class BlobAssembly:
    """Chunks of one blob; `missing` is empty as long as the size is unknown."""

    def __init__(self) -> None:
        self._chunks: dict[int, bytes] = {}
        self._total_bytes: int | None = None

    @property
    def missing(self) -> list[int]:
        """Chunk numbers still to ask for."""
        if self._total_bytes is None:
            return []
        return [number for number in range(chunk_count(self._total_bytes)) if number not in self._chunks]

    @property
    def complete(self) -> bytes | None:
        """The whole blob, once every chunk is there."""
        if self._total_bytes is None or len(self._chunks) < chunk_count(self._total_bytes):
            return None
        return b"".join(self._chunks[number] for number in range(chunk_count(self._total_bytes)))

    def add(self, number: int, chunk: BlobChunk) -> bool:
        """Take one chunk; False where it was here already.

        Raises:
            ProtocolError: `TOO_LARGE`, or `MALFORMED` where it contradicts its size or the chunks before it.
        """
        if not 0 <= chunk.total_bytes <= MAX_BLOB_BYTES:
            raise ProtocolError(Reason.TOO_LARGE, f"blob of {chunk.total_bytes} bytes exceeds {MAX_BLOB_BYTES}")
        if self._total_bytes not in {None, chunk.total_bytes}:
            raise ProtocolError(Reason.MALFORMED, f"blob of {self._total_bytes} bytes, chunk of {chunk.total_bytes}")
        expected = chunk_length(chunk.total_bytes, number)
        if not 0 <= number < chunk_count(chunk.total_bytes) or len(chunk.data) != expected:
            raise ProtocolError(Reason.MALFORMED, f"chunk {number} has {len(chunk.data)} bytes, not {expected}")
        self._total_bytes = chunk.total_bytes
        is_new = number not in self._chunks
        self._chunks.setdefault(number, chunk.data)
        return is_new
