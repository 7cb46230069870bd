"""Which of the addresses of a broker's name is connected to."""

import socket

import pytest

from fleet_host.broker_socket import connected_socket

NAME = "broker.example"
V4, V6 = socket.AF_INET, socket.AF_INET6


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.3", 0)) as server:
        yield server.getsockname()[1]


def resolving(*addresses: tuple[socket.AddressFamily, str]):
    real = socket.getaddrinfo

    def found(host, port, *others, **named):
        if host != NAME:
            return real(host, port, *others, **named)
        scope = {V4: (), V6: (0, 7)}
        return [(family, socket.SOCK_STREAM, 6, "", (name, port, *scope[family])) for family, name in addresses]

    return found


def test_addresses_that_do_not_answer_are_passed_over(listening, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", resolving((V4, "127.0.0.1"), (V4, "127.0.0.2"), (V4, "127.0.0.3")))
    with connected_socket(NAME, listening, 5.0) as connection:
        assert connection.getpeername()[0] == "127.0.0.3"


def test_each_address_comes_once_in_an_order_of_chance_within_its_family(monkeypatch):
    tried = []

    class Refusing(socket.socket):
        def connect(self, address):
            tried.append(address)
            raise ConnectionRefusedError(address[0])

    monkeypatch.setattr(socket, "socket", Refusing)
    given = resolving((V6, "::1"), (V6, "::2"), (V4, "10.0.0.1"), (V4, "10.0.0.2"), (V4, "10.0.0.1"))
    monkeypatch.setattr(socket, "getaddrinfo", given)
    with pytest.raises(ConnectionRefusedError, match=r"10\.0\.0\.1"):
        connected_socket(NAME, 1, 5.0, shuffle=list.reverse)
    assert tried == [("::2", 1, 0, 7), ("::1", 1, 0, 7), ("10.0.0.2", 1), ("10.0.0.1", 1)], "scopes included"


def test_name_that_nobody_knows_is_an_error_in_the_systems_words():
    with pytest.raises(OSError, match=r"not known|Temporary failure|No address"):
        connected_socket("broker.invalid", 1, 5.0)
