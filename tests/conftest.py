"""Fixtures and the one hypothesis profile for every folder of tests."""

import gc
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Read when onnxruntime is imported, which some tests do by themselves.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
from broker_coordinator.storage.database import Database
from bundle_runtime.bundle import Bundle
from tests.support.broker import Broker
from tests.support.bundles import write_bundle
from tests.support.connected_device import ConnectedDevice
from tests.support.coordinator import CoordinatorProcess
from tests.support.own_children import OwnChildren
from tests.support.postgresql import PostgresqlServer
from tests.support.shared_statements import share_statements

# No test asserts a time. A CI machine may be slow without anything being wrong, and draws new examples on every run.
settings.register_profile(
    "edgeflock",
    deadline=None,
    derandomize=False,
    suppress_health_check=[HealthCheck.too_slow] if "CI" in os.environ else [],
)
settings.load_profile("edgeflock")

share_statements()

# All that is imported and collected lasts until the end. Looked through again and again for what nothing refers to, it
# takes every export of a bundle a fifth of its time, and collecting the tests even more.
gc.disable()


@pytest.hookimpl(tryfirst=True)  # before those that `-m` leaves out are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run each test on PostgreSQL with the first of its cases; with the others, which SQLite has too, it is long."""
    tried: set[str] = set()
    for item in items:
        case = getattr(item, "callspec", None)
        if case is None or case.params.get("database") != "postgresql" or item.get_closest_marker("long"):
            continue
        test = item.nodeid.partition("[")[0]
        if test in tried:
            item.add_marker(pytest.mark.long)
        tried.add(test)


def pytest_collection_finish() -> None:
    """Look through what tests make, and no longer through what was there before."""
    gc.freeze()
    gc.enable()


@pytest.fixture
def children() -> OwnChildren:
    """The processes that the test starts."""
    return OwnChildren()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A running Mosquitto that the test may kill and start again."""
    broker = Broker(tmp_path / "broker")
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """A running PostgreSQL server; a test that stops it starts it again."""
    server = PostgresqlServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """An empty place for a journal, of each kind."""
    if request.param == "sqlite":
        return tmp_path / "coordinator.db"
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    return server.database(secrets.token_hex(8))


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
