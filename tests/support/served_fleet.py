"""A server and its device in one container: samples in, versions out."""

import json
from typing import Any

import pytest
from sklearn.datasets import load_digits

from fleet_protocol.device_invitation import PREFIX
from tests.support.container import Container
from tests.support.waiting import until

LEARN_SECONDS = 120.0
ROUND = 32
"""Samples that the shipped trigger waits for."""


def samples(first: int, count: int) -> str:
    digits = load_digits()
    rows = range(first, first + count)
    return "".join(
        json.dumps({"task": "digits", "inputs": (digits.data[row] / 16).tolist(), "label": int(digits.target[row])})
        + "\n"
        for row in rows
    )


def feed(container: Container, first: int, count: int) -> None:
    container.feed(samples(first, count))


def learn_on(container: Container, first: int) -> None:
    """Feed a round's samples at a time, from that one on, until what comes of them is in a version."""
    before = version(container)
    for start in range(first, first + 10 * ROUND, ROUND):
        accepted = task(container)["accepted"]
        feed(container, start, ROUND)
        until(lambda a=accepted: task(container)["accepted"] > a, "its update is accepted", LEARN_SECONDS)
        if version(container) > before:
            return
    pytest.fail("ten updates of one device made no version")


def task(container: Container) -> dict[str, Any]:
    return json.loads(container.run("broker-coordinator tasks list --json"))[0]


def version(container: Container) -> int:
    return task(container)["version"]


def invited(container: Container, name: str) -> str:
    """An invitation for a machine of that name."""
    said = container.run(f"broker-coordinator devices invite {name}")
    (invitation,) = (line for line in said.splitlines() if line.startswith(PREFIX))
    return invitation


def starts(container: Container, unit: str) -> int:
    """How often it was started."""
    return container.run(f"journalctl --no-pager --output cat --unit {unit}").count("Started ")


def main_process(container: Container, unit: str) -> int:
    return int(container.run(f"systemctl show --property MainPID --value {unit}"))


def is_active(container: Container, unit: str) -> bool:
    return container.attempt(f"systemctl is-active {unit}").stdout.strip() == "active"


def installed(container: Container) -> set[str]:
    folders = "/etc /usr/lib /usr/local /run /var/lib"
    left_out = r"-path '/run/systemd/*' -o -path '/run/udev/*' -o -path '/run/log/*' -o -path '/run/credentials*'"
    return set(container.run(rf"find {folders} \( {left_out} \) -prune -o -print").splitlines())
