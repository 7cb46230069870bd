"""A TCP connection to one of the machines that a broker's name stands for."""

import random
import socket
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any


def connected_socket(
    host: str, port: int, timeout: float, shuffle: Callable[[list[Any]], None] = random.shuffle
) -> socket.socket:
    """To the first of its addresses that answers, which come in an order of chance within each family: so a fleet
    spreads over the servers of a cluster, and the death of one costs only a part of it a connection. `timeout` is in
    seconds, for each address.

    Raises:
        OSError: the name is not known, or no address answers; then it is the last one's.
    """
    failure: OSError | None = None
    for family, address in _addresses(host, port, shuffle):
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout)
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure or OSError(f"{host} has no address")


def _addresses(host: str, port: int, shuffle: Callable[[list[Any]], None]) -> Iterator[tuple[int, Any]]:
    """Families stay in the system's order: it puts those in front that have a route."""
    found = dict.fromkeys((each[0], each[4]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    for _, alike in groupby(found, key=lambda each: each[0]):
        addresses = list(alike)
        shuffle(addresses)
        yield from addresses
