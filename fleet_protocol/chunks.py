"""How a blob, or a packed version, is cut into chunks."""

from fleet_protocol.limits import MAX_CHUNK_BYTES


def chunk_count(total_bytes: int) -> int:
    """How many chunks so many bytes are sent in; none in one."""
    return max(1, -(-total_bytes // MAX_CHUNK_BYTES))


def chunk_of(blob: bytes, number: int) -> bytes:
    """The bytes of one chunk."""
    return blob[number * MAX_CHUNK_BYTES : (number + 1) * MAX_CHUNK_BYTES]
