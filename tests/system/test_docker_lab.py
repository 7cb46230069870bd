"""The fleet of docker/compose.yaml in real containers: weak devices leave a part of a model to a helper."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from fleet_protocol.limits import MIB
from tests.support.container import TREE
from tests.support.docker_host import DockerHost
from tests.support.helper import TASK
from tests.support.waiting import until

pytestmark = [
    pytest.mark.long,
    pytest.mark.quiet,
    pytest.mark.skipif(os.geteuid() != 0, reason="a Docker daemon needs root"),
]

COMPOSE = ("compose", "-p", "edgeflock", "-f", str(TREE / "docker" / "compose.yaml"), "--profile", "helper")
AGENTS = 2
LEARN_SECONDS = 300.0
SETTINGS = {"agent": "/var/lib/edge-agent/agent.toml", "helper": "/var/lib/edgeflock-helper/helper.toml"}
PROGRAMS = {"agent": "edge-agent", "helper": "edgeflock-helper"}
FEED = f"""
import random
from edge_agent.client import AgentClient
with AgentClient("/run/edge-agent/samples.sock") as agent:
    for number in range(32):
        agent.send("{TASK}", [random.random() for _ in range(28 * 28)], label=number % 10)
"""


@dataclass(frozen=True, slots=True)
class Lab:
    """The containers of the compose file."""

    host: DockerHost

    def compose(self, *arguments: str) -> str:
        """What a command of `docker compose` says."""
        return self.host.docker(*COMPOSE, *arguments)

    def coordinator(self, *arguments: str) -> str:
        """What a command of the coordinator's says."""
        return self.compose("exec", "-T", "coordinator", "broker-coordinator", *arguments)

    def status(self, service: str, index: int = 1) -> dict[str, Any]:
        """What a container of an agent or of the helper says of itself."""
        command = [PROGRAMS[service], "--config", SETTINGS[service], "status", "--json"]
        return dict(json.loads(self.compose("exec", "-T", "--index", str(index), service, *command)))

    def enrolled(self) -> list[str]:
        """The names of all members."""
        return [row["name"] for row in json.loads(self.coordinator("devices", "list", "--json"))]

    def task(self) -> dict[str, Any]:
        """What the coordinator lists of it."""
        return next(row for row in json.loads(self.coordinator("tasks", "list", "--json")) if row["task"] == TASK)


@pytest.fixture
def lab(host: DockerHost) -> Iterator[Lab]:
    keyless = Lab(host)
    key = keyless.compose("run", "--rm", "--no-deps", "coordinator", "keygen", "coordinator.key")
    lab = Lab(replace(host, variables=host.variables | {"COORDINATOR_KEY": key}))
    yield lab
    lab.compose("down", "--volumes")


def test_weak_devices_and_a_helper_make_a_version_each_in_its_container(host: DockerHost, lab: Lab) -> None:
    lab.compose("up", "--detach", "--scale", f"agent={AGENTS}")
    until(lambda: len(lab.enrolled()) == AGENTS + 1, "agents and helper have enrolled")
    (helper,) = [name for name in lab.enrolled() if name.startswith("helper-")]
    lab.coordinator("tasks", "publish", f"/models/{TASK}/bundle")
    lab.coordinator("helpers", "allow", helper)
    until(lambda: TASK in lab.status("helper")["versions"], "the helper offers the task")
    for index in range(1, AGENTS + 1):
        until(lambda i=index: TASK in lab.status("agent", i)["versions"], "the agent has the task")
        lab.compose("exec", "-T", "--index", str(index), "agent", "/opt/edgeflock/bin/python", "-c", FEED)
    until(lambda: lab.task()["accepted"] > AGENTS, "what devices and helper have learned is accepted", LEARN_SECONDS)
    lab.coordinator("tasks", "aggregate", TASK)
    until(lambda: lab.task()["version"] > 0, "it makes a version")
    assert lab.status("helper")["steps"] > 0
    assert "middle_failed" not in lab.compose("logs", "helper")
    for service, limit_mib in (("agent", 416), ("helper", 3072)):
        container = lab.compose("ps", "--quiet", service).split()[0]
        found = json.loads(host.docker("inspect", container))[0]["HostConfig"]
        assert found["Memory"] == found["MemorySwap"] == limit_mib * MIB
        assert (found["ReadonlyRootfs"], found["CapDrop"]) == (True, ["ALL"])
    lab.compose("down", "--volumes")
    assert host.left() == []
