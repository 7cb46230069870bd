"""Both readers of a connection get what is theirs, and what is sent arrives in order."""

import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.admission.decisions import Message
from broker_coordinator.mqtt.divided_socket import DividedSocket
from broker_coordinator.mqtt.traffic import TrafficDivider, publication_packet
from tests.support.waiting import DEADLINE_SECONDS

PING_ANSWER = b"\xd0\x00"
MEGABYTE = bytes(range(256)) * 4096


def divider() -> TrafficDivider:
    return TrafficDivider(mqtt5=False, max_packet_bytes=len(MEGABYTE))


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    divided = DividedSocket(ours, divider())
    divided.setblocking(False)
    with theirs:
        yield divided, theirs
    divided.close()


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 3))
def test_link_and_paho_each_get_their_packets_in_order(kinds, size) -> None:
    ours, theirs = socket.socketpair()
    reader = DividedSocket(ours, divider())
    reader.setblocking(False)
    with theirs:
        for number, is_message in enumerate(kinds):
            load = publication_packet("t", bytes([number]), 1, retained=False, duplicate=False, mqtt5=False)
            theirs.sendall(load if is_message else PING_ANSWER)
        while reader.receive():
            pass
        wanted = [Message("t", bytes([number])) for number, is_message in enumerate(kinds) if is_message]
        assert reader.take().messages == wanted
        received = b""
        while reader.has_news_for_paho:
            received += reader.recv(size)
        assert received == PING_ANSWER * kinds.count(False)
        with pytest.raises(BlockingIOError):
            reader.recv(1)
    reader.close()


def test_what_does_not_fit_waits_and_is_sent_later(ends) -> None:
    writer, theirs = ends
    for _ in range(4):
        assert writer.send(MEGABYTE) == len(MEGABYTE)
    assert not writer.flush()
    assert writer.unsent_bytes
    received = b""
    while len(received) < 4 * len(MEGABYTE):
        received += theirs.recv(1 << 20)
        writer.flush()
    assert received == MEGABYTE * 4
    assert not writer.unsent_bytes


def test_nothing_is_sent_before_it_is_flushed(ends) -> None:
    writer, theirs = ends
    writer.send(b"one")
    writer.send(b"two")
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(10)
    assert writer.flush()
    assert theirs.recv(10) == b"onetwo"


def test_paho_hears_of_the_end_after_what_came_before_it(ends) -> None:
    reader, theirs = ends
    theirs.sendall(PING_ANSWER)
    theirs.close()
    while reader.receive():
        pass
    assert reader.recv(2) == PING_ANSWER
    assert reader.has_news_for_paho
    with pytest.raises(ConnectionResetError, match="closed"):
        reader.recv(1)
    assert not reader.receive()


def test_a_broker_that_can_not_be_understood_is_a_lost_connection(ends) -> None:
    reader, theirs = ends
    theirs.sendall(b"\x32\x01\x00")
    assert not reader.receive()
    with pytest.raises(ConnectionError, match="PUBLISH that ends"):
        reader.recv(1)


def test_lost_connection_is_an_error_and_nothing_waits_any_more(ends) -> None:
    writer, theirs = ends
    theirs.close()
    writer.send(b"data")
    with pytest.raises(OSError, match="Broken pipe"):
        writer.flush()
    assert not writer.unsent_bytes


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    names = folder / "broker.crt", folder / "broker.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    alternative = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    subprocess.run([*command, *alternative, "-out", names[0], "-keyout", names[1]], check=True, capture_output=True)
    return names


def test_tls_carries_more_than_its_buffers_hold_in_both_directions(certificate) -> None:
    ours, theirs = socket.socketpair()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(*certificate)
    load = publication_packet("t", bytes(100_000), 1, retained=False, duplicate=False, mqtt5=False)
    received, all_taken = bytearray(), threading.Event()

    def be_the_broker() -> None:
        with serving.wrap_socket(theirs, server_side=True) as connection:
            connection.sendall((load + PING_ANSWER) * 20)
            while len(received) < 4 * len(MEGABYTE):
                received.extend(connection.recv(1 << 16))
            all_taken.wait(timeout=DEADLINE_SECONDS)  # hanging up is another test's subject

    broker = threading.Thread(target=be_the_broker)
    broker.start()
    context = ssl.create_default_context(cafile=str(certificate[0]))
    divided = DividedSocket(context.wrap_socket(ours, server_hostname="localhost"), divider())
    divided.setblocking(False)
    for _ in range(4):
        divided.send(MEGABYTE)
    messages, pings = [], b""
    while len(messages) < 20 or len(pings) < 20 * len(PING_ANSWER) or divided.unsent_bytes:
        divided.flush()
        while divided.receive():
            pass
        messages += divided.take().messages
        while divided.has_news_for_paho:
            pings += divided.recv(100)
    all_taken.set()
    broker.join()
    divided.close()
    assert messages == [Message("t", bytes(100_000))] * 20
    assert pings == PING_ANSWER * 20
    assert received == MEGABYTE * 4
