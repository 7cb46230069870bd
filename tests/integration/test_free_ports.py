"""Servers of tests that run side by side are never given the same port."""

from itertools import islice

import pytest

from tests.support.broker import SERVER_PORTS, ports_of


@pytest.mark.parametrize("workers", [1, 2, 4, 7])
def test_no_two_processes_share_a_port_and_none_gives_one_twice_before_it_has_given_all(workers):
    names = [f"gw{number}" for number in range(workers)] if workers > 1 else [""]
    given = [list(islice(ports_of(name, workers), len(SERVER_PORTS) // workers)) for name in names]
    assert len({port for ports in given for port in ports}) == sum(map(len, given)) > len(SERVER_PORTS) - workers
    assert {port for ports in given for port in ports} <= set(SERVER_PORTS)
