"""Frames: how a session's encrypted messages travel, in chunks, and how they are put together again. Pure.

A frame is a header, a hop tag that shows the relay in microseconds who has sent it, and an encrypted chunk. The relay
tags it anew for the receiver. `docs/wire-format.md` has it byte for byte.
"""

import hmac
import struct
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Final

import msgspec

from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.limits import MAX_FRAME_BYTES, MAX_REQUESTS_IN_FLIGHT, MAX_SESSION_MESSAGE_BYTES, SESSION_BYTES
from fleet_protocol.sessions.secrecy import HOP_TAG_BYTES, SEAL_BYTES, Direction, hop_tag

VERSION: Final = 1
"""First byte of a frame; a signed message begins with another."""
_HEADER: Final = struct.Struct(f">BB{SESSION_BYTES}sBQHHQQ")
_BODY_AT: Final = _HEADER.size + HOP_TAG_BYTES
MAX_FRAME_MESSAGE_BYTES: Final = _BODY_AT + MAX_FRAME_BYTES
"""A frame as it is published."""
CHUNK_CONTENT_BYTES: Final = MAX_FRAME_BYTES - SEAL_BYTES
"""Of each chunk but the last, before it is encrypted."""
MAX_CHUNKS: Final = MAX_SESSION_MESSAGE_BYTES // MAX_FRAME_BYTES
MAX_CONTENT_BYTES: Final = MAX_CHUNKS * CHUNK_CONTENT_BYTES
"""Of the longest message of a session, before it is encrypted."""
MAX_UNFINISHED_BYTES: Final = 4 * MAX_SESSION_MESSAGE_BYTES
"""Of messages that have come in part, of one session and direction."""
_LARGEST: Final = 2**63 - 1


class FrameType(IntEnum):
    """What a frame is for."""

    CONTENT = 0
    """A chunk of a message."""
    PROBE = 1
    """Asks the other end for a sign of life and for credit."""
    CREDIT = 2
    """The answer: `offset` is how far the other end may send."""


class Frame(msgspec.Struct, frozen=True, gc=False):
    """`offset` counts the bytes of bodies that its sender has sent in the session before, repeats among them; of a
    `CREDIT` it is the limit of what the receiver may send. `settled`: the device needs no answer any more to a request
    of this number or a lower one. Message, chunk and body are those of a `CONTENT`, else 0 and empty.
    """

    type: FrameType
    session: bytes
    direction: Direction
    offset: int
    settled: int
    number: int = 0
    index: int = 0
    count: int = 0
    body: bytes = b""

    @property
    def end(self) -> int:
        """The offset behind it."""
        return self.offset + len(self.body)


def write_frame(frame: Frame, key: bytes) -> bytes:
    """The bytes of a frame, tagged with the hop's key."""
    header = _HEADER.pack(
        VERSION,
        frame.type,
        frame.session,
        frame.direction,
        frame.number,
        frame.index,
        frame.count,
        frame.offset,
        frame.settled,
    )
    return b"".join((header, hop_tag(key, header + frame.body[-SEAL_BYTES:]), frame.body))


def session_of(data: bytes) -> bytes:
    """The session that a frame names, unchecked; of bytes that are too short for one, fewer or none."""
    return data[2 : 2 + SESSION_BYTES]


def is_frame(data: bytes) -> bool:
    """Whether it is a frame rather than a signed message."""
    return data[:1] == VERSION.to_bytes()


def read_frame(data: bytes) -> Frame:
    """Parse a frame; who has sent it is not checked.

    Raises:
        ProtocolError: `TOO_LARGE`; `MALFORMED`.
    """
    if len(data) > MAX_FRAME_MESSAGE_BYTES:
        raise ProtocolError(Reason.TOO_LARGE, f"frame of {len(data)} bytes; at most {MAX_FRAME_MESSAGE_BYTES} are read")
    if len(data) < _BODY_AT:
        raise ProtocolError(Reason.MALFORMED, f"frame of {len(data)} bytes; it has at least {_BODY_AT}")
    version, kind, session, direction, number, index, count, offset, settled = _HEADER.unpack_from(data)
    body = data[_BODY_AT:]
    if version != VERSION or kind > FrameType.CREDIT or direction > Direction.FROM_HELPER:
        raise ProtocolError(Reason.MALFORMED, f"frame of version {version}, type {kind}, direction {direction}")
    if max(number, offset, settled) > _LARGEST - MAX_FRAME_BYTES:
        raise ProtocolError(Reason.MALFORMED, "a number of the frame is above every one that is in use")
    has_content = kind == FrameType.CONTENT
    is_whole = number and index < count <= MAX_CHUNKS and len(body) >= SEAL_BYTES
    if not (is_whole if has_content else not (number or index or count or body)):
        raise ProtocolError(
            Reason.MALFORMED, f"frame of type {kind} with chunk {index} of {count}, message {number}, {len(body)} bytes"
        )
    return Frame(FrameType(kind), session, Direction(direction), offset, settled, number, index, count, body)


def is_tagged(data: bytes, key: bytes) -> bool:
    """Whether a frame of a valid length was tagged by who has this hop's key."""
    return hmac.compare_digest(data[_HEADER.size : _BODY_AT], hop_tag(key, _covered(data)))


def tagged_anew(data: bytes, key: bytes) -> bytes:
    """The same frame for the next hop."""
    return b"".join((data[: _HEADER.size], hop_tag(key, _covered(data)), data[_BODY_AT:]))


def _covered(data: bytes) -> bytes:
    """The header, and what stands for the chunk: the tag of its encryption."""
    return data[: _HEADER.size] + data[max(_BODY_AT, len(data) - SEAL_BYTES) :]


def chunks_of(content: bytes) -> Sequence[bytes]:
    """A message, cut: at least one chunk.

    Raises:
        ValueError: it is too long.
    """
    if len(content) > MAX_CONTENT_BYTES:
        raise ValueError(f"a session's message of {len(content)} bytes; at most {MAX_CONTENT_BYTES} can be sent")
    return [content[at : at + CHUNK_CONTENT_BYTES] for at in range(0, max(1, len(content)), CHUNK_CONTENT_BYTES)]


class Assembly:
    """Puts messages together out of frames in any order. `unseal` decrypts a frame's body, or raises.

    Only authentic chunks are kept, of at most `MAX_REQUESTS_IN_FLIGHT` messages and `MAX_UNFINISHED_BYTES` in all: what
    exceeds it gives way, the message of the highest number first, and comes again when it is repeated.
    """

    def __init__(self, unseal: Callable[[Frame], bytes]) -> None:
        self._unseal = unseal
        self._unfinished: dict[int, list[bytes | None]] = {}
        self._bytes = 0

    def take(self, frame: Frame) -> bytes | None:
        """The message that this frame completes, if it does.

        Raises:
            ProtocolError: it does not decrypt.
        """
        content = self._unseal(frame)
        chunks = self._unfinished.setdefault(frame.number, [None] * frame.count)
        if len(chunks) != frame.count:
            raise ProtocolError(
                Reason.MALFORMED, f"message {frame.number} of {frame.count} chunks; it had {len(chunks)} before"
            )
        if chunks[frame.index] is None:
            chunks[frame.index] = content
            self._bytes += len(content)
        if any(chunk is None for chunk in chunks):
            self._give_way()
            return None
        self._drop(frame.number)
        return b"".join(filter(None, chunks))

    def drop_through(self, number: int) -> None:
        """Forget what has come of messages up to this one."""
        for each in [each for each in self._unfinished if each <= number]:
            self._drop(each)

    def _drop(self, number: int) -> None:
        self._bytes -= sum(map(len, filter(None, self._unfinished.pop(number))))

    def _give_way(self) -> None:
        while self._bytes > MAX_UNFINISHED_BYTES or len(self._unfinished) > MAX_REQUESTS_IN_FLIGHT:
            self._drop(max(self._unfinished))
