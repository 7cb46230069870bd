"""Fixtures for every folder of tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker_coordinator.bundle_store import Bundle
from tests.support.broker import Broker
from tests.support.bundles import write_bundle
from tests.support.coordinator import CoordinatorProcess
from tests.support.device import ConnectedDevice


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A running Mosquitto that the test may kill and start again."""
    broker = Broker(tmp_path / "broker")
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """The tiny task's bundle, in `tmp_path / "bundle"`."""
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def coordinator(tmp_path: Path, broker: Broker, bundle: Bundle) -> Iterator[CoordinatorProcess]:
    """A running coordinator of the tiny task, with open enrolment."""
    coordinator = CoordinatorProcess(tmp_path / "coordinator", broker, [tmp_path / "bundle"])
    coordinator.start()
    yield coordinator
    coordinator.kill()


@pytest.fixture
def connect(broker: Broker, coordinator: CoordinatorProcess) -> Iterator[Callable[[str], ConnectedDevice]]:
    """Connects a device of the given name to the broker and enrols it."""
    devices: list[ConnectedDevice] = []

    def connect_one(name: str) -> ConnectedDevice:
        device = ConnectedDevice(name, broker, coordinator.public_key)
        devices.append(device)
        device.enrol()
        return device

    yield connect_one
    for device in devices:
        device.close()
