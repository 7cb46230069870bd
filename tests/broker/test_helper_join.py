"""A helper joins with an invitation, and serves a device through a broker whose rules keep each to its own topics."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from session_relay.helper.cli import main as helper_main
from tests.support.helper import CUT, TASK, HelperProcess, copy_split_bundle, sample
from tests.support.in_process import program
from tests.support.managed_server import PATIENCE_SECONDS, JoinedAgent, Server, running_server
from tests.support.process import RestartableProcess
from tests.support.waiting import until


class JoinedHelper(HelperProcess):
    """A helper in the folder that `join` has filled."""

    def __init__(self, folder: Path, name: str) -> None:
        RestartableProcess.__init__(self, folder / "helper.log")
        self.name, self.folder = name, folder
        self.configuration, self.socket = folder / "helper.toml", folder / "status.sock"


WORKER = "\n[worker]\nnice = 0\n"


def rewrite(file: Path, text: str) -> None:
    """The file is read-only, as `join` has left it."""
    file.unlink()
    file.write_text(text)


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def helper(tmp_path: Path) -> Iterator[JoinedHelper]:
    (tmp_path / "helper").mkdir()
    helper = JoinedHelper(tmp_path / "helper", "cellar-pi")
    yield helper
    helper.kill()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[JoinedAgent]:
    (tmp_path / "device").mkdir()
    agent = JoinedAgent(tmp_path / "device", "kitchen-pi")
    yield agent
    agent.kill()


def test_helper_and_device_join_and_make_a_version_together(server, helper, agent, tmp_path) -> None:
    copy_split_bundle(tmp_path / "bundle", buffer_size=1)
    server.tasks("publish", str(tmp_path / "bundle"))
    invitation = server.invite("cellar-pi", "--task", TASK)
    joined = program(helper_main, "join", invitation, "--folder", tmp_path / "helper", "--wait", PATIENCE_SECONDS)
    assert joined.returncode == 0, joined.stderr
    assert "broker-coordinator helpers allow cellar-pi" in joined.stdout
    server.helpers("allow", "cellar-pi")
    rewrite(helper.configuration, helper.configuration.read_text() + WORKER)
    helper.serve()
    again = program(helper_main, "join", invitation, "--folder", tmp_path / "helper")
    assert (again.returncode, "already" in again.stdout) == (0, True), again.stderr
    assert server.join(server.invite("kitchen-pi", "--task", TASK), tmp_path / "device").returncode == 0
    text = agent.configuration.read_text().replace(f'name = "{TASK}"', f'name = "{TASK}"\nsplit = {{ cut = "{CUT}" }}')
    rewrite(agent.configuration, f"{text}trigger = {{ new_samples = 32 }}\n{WORKER}")
    agent.start()
    for number in range(32):
        assert agent.ask(sample(number)) == {"ok": True}
    until(lambda: server.tasks("list")[0]["version"] > 0, "a version of the device's update and the helper's")
    assert helper.status()["steps"] > 0
    assert (agent.stop(), helper.stop()) == (0, 0)
