"""A card flashed for a Raspberry Pi, booted into by emulated arm64: its own packages, an invitation, an update."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.agent import sample
from tests.support.cards import flash_offline, wheel_of_tree
from tests.support.inviting_server import InvitingServer
from tests.support.process import RestartableProcess
from tests.support.waiting import DEADLINE_SECONDS, until

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.geteuid() != 0, reason="making and entering a root filesystem needs root"),
]

TREE = Path(__file__).parents[2]
BUILD = TREE / "build" / "arm64"
ROOT = BUILD / "root"
ENTER = ["sh", str(TREE / "tests/arm64/enter.sh"), str(ROOT)]
SOCKET = Path("run/edge-agent/samples.sock")
OF_A_DEVICE = (
    "opt/edge-agent",
    "etc/edge-agent",
    "var/lib/edge-agent",
    "run/edge-agent",
    "boot/firmware",
    "usr/local/bin",
)
LEARN_SECONDS = 300.0
SAMPLES = 40
"""More than the shipped trigger waits for."""


@pytest.fixture
def server() -> Iterator[InvitingServer]:
    folder = Path(tempfile.mkdtemp(prefix="edgeflock-"))
    folder.chmod(0o755)
    server = InvitingServer(folder)
    server.start()
    server.publish(TREE / "models/digits/bundle")
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def card() -> Path:
    """The boot partition of a device that has never run."""
    subprocess.run(["sh", TREE / "tests/arm64/prepare.sh", BUILD, sys.executable], check=True, cwd=TREE)
    for folder in OF_A_DEVICE:
        shutil.rmtree(ROOT / folder, ignore_errors=True)
        (ROOT / folder).mkdir(parents=True)
    card = ROOT / "boot/firmware"
    (card / "cmdline.txt").write_text("console=tty1 root=PARTUUID=1-02\n")
    (card / "config.txt").write_text("arm_64bit=1\n")
    return card


class EmulatedAgent(RestartableProcess):
    """The agent that the card has installed, as its unit starts it."""

    def start(self) -> None:
        self._spawn([*ENTER, "/opt/edge-agent/bin/edge-agent", "run", "--config", "/etc/edge-agent/agent.toml"])
        until((ROOT / SOCKET).exists, "it takes samples")

    def stop(self) -> int:
        assert self._process is not None
        (agent,) = psutil.Process(self.pid).children()  # `unshare` hands no signal on
        agent.terminate()
        return self._process.wait(DEADLINE_SECONDS)

    def feed(self, count: int) -> None:
        with socket.socket(socket.AF_UNIX) as gate:
            gate.connect(str(ROOT / SOCKET))
            answers = gate.makefile()
            for number in range(count):
                gate.sendall(json.dumps(sample(number)).encode() + b"\n")
                assert json.loads(answers.readline()) == {"ok": True}


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[EmulatedAgent]:
    agent = EmulatedAgent(tmp_path / "agent.log")
    yield agent
    agent.kill()


def test_card_installs_its_packages_joins_and_delivers_an_update_on_arm64(
    server: InvitingServer, card: Path, agent: EmulatedAgent, tmp_path: Path
) -> None:
    began = time.monotonic()
    wheel = wheel_of_tree(tmp_path)
    flash_offline(
        profile="pi-zero-2w", name="kitchen-pi", invitation=server.invite("kitchen-pi"), boot=card, package=wheel
    )
    joined = subprocess.run(
        [*ENTER, "/bin/sh", "/boot/firmware/edgeflock/first-boot.sh"], capture_output=True, text=True, check=False
    )
    assert joined.returncode == 0, joined.stdout + joined.stderr
    assert not (card / "edgeflock/invitation").exists()
    print(f"{time.monotonic() - began:.0f} s to join")  # noqa: T201
    agent.start()
    agent.feed(SAMPLES)
    until(lambda: server.task()["accepted"] > 0, "its update is accepted", LEARN_SECONDS)
    print(f"{time.monotonic() - began:.0f} s to an accepted update")  # noqa: T201
    assert agent.stop() == 0
