"""Fixtures that several tests share: what split learning needs, the Debian packages, and a Docker daemon."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.debian_packages import Packages, make_packages
from tests.support.docker_host import DockerHost, build_images, docker_host
from tests.support.split_fleet import SplitFleet


@pytest.fixture
def fleet(tmp_path: Path, broker: Broker) -> Iterator[SplitFleet]:
    """Of devices that leave the middle to helpers; a coordinator is there once the test has begun it."""
    fleet = SplitFleet(tmp_path, broker)
    yield fleet
    fleet.end()


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """The Debian packages of the tree."""
    return make_packages(tmp_path_factory.mktemp("packages"))


@pytest.fixture(scope="session")
def host() -> Iterator[DockerHost]:
    """A Docker daemon that has every image."""
    with docker_host() as running:
        build_images(running)
        yield running
