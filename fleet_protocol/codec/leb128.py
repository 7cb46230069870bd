"""Unsigned integers in LEB128: seven bits a byte, lowest first, the highest bit set where more follow."""

from fleet_protocol.errors import ProtocolError, Reason


def write_leb128(value: int) -> bytes:
    """The shortest form of `value`."""
    coded = bytearray()
    while value >= 0x80:
        coded.append(value & 0x7F | 0x80)
        value >>= 7
    coded.append(value)
    return bytes(coded)


def read_leb128(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """A value of at most 35 bits, and the position behind it.

    Raises:
        ProtocolError: `MALFORMED`: longer, or not the shortest form.
        IndexError: the data ends within.
    """
    value = 0
    for length in range(1, 6):
        byte = data[position + length - 1]
        value |= (byte & 0x7F) << 7 * (length - 1)
        if byte < 0x80:
            if byte == 0 and length > 1:
                raise ProtocolError(Reason.MALFORMED, "a length is not in its shortest form")
            return value, position + length
    raise ProtocolError(Reason.MALFORMED, "a length takes more than 5 bytes")
