"""What systemd is told, and that nobody else is told anything."""

import socket
from pathlib import Path

import pytest

from fleet_host.service_manager import ServiceManager


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "6000000"}, 6.0),
        ({"WATCHDOG_USEC": "6000000", "WATCHDOG_PID": "7"}, 6.0),
        ({"WATCHDOG_USEC": "6000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_watchdog_counts_for_the_process_that_it_is_meant_for(environment, seconds) -> None:
    manager = ServiceManager.of(environment, process=7)
    assert manager.watchdog_seconds == seconds
    assert manager.sign_seconds == (None if seconds is None else seconds / 3)


@pytest.mark.parametrize("is_abstract", [False, True])
def test_each_sign_is_one_datagram_and_a_status_one_line(tmp_path: Path, is_abstract: bool) -> None:
    name = f"@{tmp_path}/notify" if is_abstract else f"{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if is_abstract else name)
        told = ServiceManager(name)
        told.ready()
        told.alive()
        told.status("connected;\nREADY=1 2 wait")
        assert [manager.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"STATUS=connected; READY=1 2 wait"]


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "x" * 200])
def test_manager_that_is_not_there_or_does_not_listen_stops_nothing(address: str) -> None:
    ServiceManager(address).ready()
