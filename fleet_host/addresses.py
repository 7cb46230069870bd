"""Hosts that somebody names: whether one is this machine's own, and a port that is opened there."""

import ipaddress
import socket


def is_address(host: str) -> bool:
    """Whether it is meant as an IP address."""
    return ":" in host or not host.strip("0123456789.")


def is_loopback(host: str) -> bool:
    """Whether this machine alone reaches itself by it.

    Raises:
        ValueError: it is meant as an address, and is none.
    """
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def open_port(address: str, port: int) -> socket.socket:
    """A TCP socket that listens; port 0 takes any that is free.

    Raises:
        OSError: the address is none of this machine's, or somebody else has the port.
    """
    family, kind, protocol, _, name = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(name)
        opened.listen()
    except OSError:
        opened.close()
        raise
    return opened
