"""`broker-coordinator tasks invite` against a real broker: it says what became of the message, and no more."""

import json
from pathlib import Path

import pytest

from broker_coordinator.cli import main
from fleet_protocol import topics
from tests.support.broker import Broker
from tests.support.bundles import TASK, write_bundle
from tests.support.coordinator import CoordinatorProcess
from tests.support.fleet import FLEET

TOPIC = topics.invitation(FLEET, TASK)


def invited(folder: Path, broker: Broker, protocol: str) -> int:
    """The exit status."""
    write_bundle(folder / "bundle")
    operator = CoordinatorProcess(folder / "coordinator", broker, [], protocol=protocol)
    assert main(["tasks", "--config", str(operator.configuration), "publish", str(folder / "bundle")]) == 0
    return main(["tasks", "--config", str(operator.configuration), "invite", TASK, "--json"])


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_success_prints_no_error(broker, protocol, tmp_path, capfd, caplog):
    status = invited(tmp_path, broker, protocol)
    said = capfd.readouterr()
    assert (status, said.err, [record.message for record in caplog.records]) == (0, "", [])
    assert json.loads(said.out[said.out.index("{") :]) == {"task": TASK, "version": 0, "generation": 0}


def test_invitation_that_the_access_control_list_denies_is_no_success(tmp_path, capfd):
    denying = Broker(tmp_path / "broker", access_list="topic read #\n")
    denying.start()
    try:
        status = invited(tmp_path, denying, "5")
        error = capfd.readouterr().err
        assert (status, error) == (2, refused_by(denying, "Not authorized"))
    finally:
        denying.kill()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_connection_that_the_broker_refuses_is_told_in_one_line(tmp_path, capfd, protocol):
    refusing = Broker(tmp_path / "broker", anonymous=False)
    refusing.start()
    try:
        status = invited(tmp_path, refusing, protocol)
        assert (status, capfd.readouterr().err) == (2, refused_by(refusing, "Not authorized"))
    finally:
        refusing.kill()


def refused_by(broker: Broker, why: str) -> str:
    return (
        f"broker-coordinator: broker 127.0.0.1:{broker.port} did not take the invitation: {why}; compare [broker] with"
        f" what the running coordinator has, and let it write to {TOPIC}\n"
    )
