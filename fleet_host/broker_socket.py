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
    for address in _addresses(host, port, shuffle):
        try:
            return socket.create_connection((address, port), timeout)
        except OSError as error:
            failure = error
    raise failure or OSError(f"{host} has no address")


def _addresses(host: str, port: int, shuffle: Callable[[list[Any]], None]) -> Iterator[str]:
    """Families stay in the system's order: it puts those in front that have a route."""
    found = dict.fromkeys((family, str(name[0])) for family, *_, name in socket.getaddrinfo(host, port, type=_TCP))
    for _, alike in groupby(found, key=lambda each: each[0]):
        addresses = [address for _, address in alike]
        shuffle(addresses)
        yield from addresses


_TCP = socket.SOCK_STREAM
