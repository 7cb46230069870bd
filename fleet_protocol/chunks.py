"""How a blob, or a packed version, is cut into chunks: all of `MAX_CHUNK_BYTES` but the last."""

from fleet_protocol.limits import MAX_CHUNK_BYTES


def chunk_count(total_bytes: int) -> int:
    """How many chunks so many bytes are sent in; none in one."""
    return max(1, -(-total_bytes // MAX_CHUNK_BYTES))


def chunk_length(total_bytes: int, number: int) -> int:
    """How many bytes the chunk of that number holds; 0 beyond the last."""
    return max(0, min(MAX_CHUNK_BYTES, total_bytes - number * MAX_CHUNK_BYTES))


def chunk_bytes(blob: bytes, number: int) -> bytes:
    """The bytes of one chunk."""
    return blob[number * MAX_CHUNK_BYTES : (number + 1) * MAX_CHUNK_BYTES]
