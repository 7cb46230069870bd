"""Bytes come out of a buffered socket as they went in, in order, however they are cut."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.buffered_socket import WRITE_TOGETHER_BYTES, BufferedSocket


@given(st.lists(st.binary(max_size=50)), st.lists(st.integers(1, 70), min_size=1))
def test_what_is_sent_arrives_in_order_once_it_is_flushed(sent, sizes) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        writer, reader = BufferedSocket(ours), BufferedSocket(theirs)
        reader.setblocking(False)
        for data in sent:
            assert writer.send(data) == len(data)
        with pytest.raises(BlockingIOError):
            reader.recv(1)
        assert writer.flush()
        assert not writer.unsent
        wanted, received = b"".join(sent), b""
        while len(received) < len(wanted):
            received += reader.recv(sizes[len(received) % len(sizes)])
        assert received == wanted
        assert reader.pending() == 0
        writer.close()
        assert reader.recv(1) == b"", "the end of the connection is seen"


def test_what_does_not_fit_waits_and_is_sent_later() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        writer, data = BufferedSocket(ours), bytes(range(256)) * (WRITE_TOGETHER_BYTES // 256)
        writer.setblocking(False)
        sent = 0
        with pytest.raises(BlockingIOError):
            while True:
                sent += writer.send(data)
        assert writer.unsent
        received = b""
        while len(received) < sent:
            received += theirs.recv(1 << 20)
            writer.flush()
        assert received == data * (sent // len(data))


def test_lost_connection_is_an_error_and_nothing_waits_any_more() -> None:
    ours, theirs = socket.socketpair()
    writer = BufferedSocket(ours)
    theirs.close()
    writer.send(b"data")
    with pytest.raises(OSError, match="Broken pipe"):
        writer.flush()
    assert not writer.unsent
    writer.close()
