"""The dashboard that the shipped coordinator starts, beside a real Mosquitto and real agents."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from broker_coordinator.dashboard.feed import MOST_STREAMS
from broker_coordinator.dashboard.server import MOST_CONNECTIONS
from broker_coordinator.storage.device_registry import DeviceRegistry
from tests.support.agent import AgentProcess, copy_digits_bundle
from tests.support.broker import Broker, free_port
from tests.support.coordinator import CoordinatorProcess
from tests.support.dashboard import AskedDashboard, asked_dashboard, settings_of
from tests.support.own_children import OwnChildren
from tests.support.process import environment
from tests.support.waiting import until


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def coordinator(tmp_path: Path, broker: Broker, port: int) -> Iterator[CoordinatorProcess]:
    """With closed enrolment, of a task whose versions take one update."""
    copy_digits_bundle(tmp_path / "digits", buffer_size=1)
    more = settings_of(tmp_path, port)
    coordinator = CoordinatorProcess(
        tmp_path / "coordinator", broker, [tmp_path / "digits"], enrolment="closed", more=more
    )
    coordinator.start_serving()
    yield coordinator
    coordinator.kill()


@pytest.fixture
def dashboard(coordinator: CoordinatorProcess, port: int) -> AskedDashboard:
    return asked_dashboard(coordinator, port)


def test_device_that_is_approved_on_the_page_trains_and_the_numbers_are_the_database_s(
    tmp_path, broker, coordinator, dashboard
) -> None:
    agent = AgentProcess(tmp_path / "kitchen", "kitchen-pi", broker, coordinator.public_key)
    agent.start()
    try:
        (row,) = until(lambda: dashboard.get("/api/devices")["devices"], "the device has enrolled")
        assert (row["name"], row["state"], row["heard"]) == ("kitchen-pi", "pending", None)
        assert dashboard.post("/api/devices/kitchen-pi/approve", key="00" * 8).status_code == 400
        assert dashboard.post("/api/devices/kitchen-pi/approve", key=row["key_id"]).json() == {"state": "approved"}
        agent.feed(4)
        until(lambda: dashboard.get("/api/overview")["tasks"][0]["version"] == 1, "its update has made a version")
        page = until(lambda: (p := dashboard.get("/api/devices"))["devices"][0]["heard"] and p, "it was heard")
        assert page["devices"][0]["updates"] == 1
        assert page["watched_since"] < page["devices"][0]["heard"]
        with coordinator.journal() as journal:
            (update,) = journal.held_updates("digits", 1)
            weights = journal.weights_of("digits", 1)
            assert update.envelope is not None and weights is not None
            _, one = dashboard.get("/api/tasks/digits/versions")["versions"]
            assert (one["number"], one["updates"], one["mean_staleness"]) == (1, 1, update.staleness)
            assert (one["update_bytes"], one["weights_bytes"]) == (len(update.envelope), len(weights))
            assert one["mean_loss"] == pytest.approx(update.read_facts().loss)
            assert dashboard.client.get("/api/tasks/digits/model?version=1&single=true").content == weights
        said = coordinator.log()
        assert 'event=dashboard_changed change=approve of=kitchen-pi by="who has the token" address=127.0.0.1' in said
        assert dashboard.post("/api/tasks/digits/pause").json() == {"paused": True}
        assert coordinator.tasks("list")[0]["paused"]
        assert dashboard.post("/api/tasks/digits/resume").json() == {"paused": False}
        assert dashboard.post("/api/tasks/digits/rollback", version=0).json() == {"version": 2, "restored": 0}
        assert dashboard.post("/api/devices/kitchen-pi/revoke").json() == {"state": "revoked"}
        assert coordinator.devices("list")[0]["state"] == "revoked"
    finally:
        agent.kill()


def test_dashboard_that_is_killed_comes_back_on_its_port_and_the_coordinator_goes_on(
    children: OwnChildren, coordinator: CoordinatorProcess, dashboard: AskedDashboard
) -> None:
    process = next(each for each in psutil.Process(coordinator.pid).children() if "dashboard" in str(each.cmdline()))
    process.kill()
    until(lambda: "event=dashboard_ended status=-9" in coordinator.log(), "the coordinator says so")
    until(lambda: coordinator.log().count("event=dashboard_started") == 2 and dashboard.answers(), "it is back")
    assert coordinator.exit_status() is None
    assert dashboard.get("/api/overview")["tasks"][0]["task"] == "digits"


def test_coordinator_and_its_dashboard_end_together_while_a_page_listens(coordinator, dashboard, port) -> None:
    with dashboard.client.stream("GET", "/api/events") as events:
        assert next(line for line in events.iter_lines() if line.startswith("data: {"))
        (process,) = (each for each in psutil.Process(coordinator.pid).children() if "dashboard" in str(each.cmdline()))
        coordinator.stop()
    until(lambda: not process.is_running(), "it has ended")
    assert not dashboard.answers()


def test_port_that_somebody_has_is_refused_at_the_start_in_words(coordinator, port) -> None:
    coordinator.stop()
    with socket.create_server(("127.0.0.1", port)):
        command = [sys.executable, "-m", "broker_coordinator.cli", "run", "--config", str(coordinator.configuration)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), timeout=60)
    assert done.returncode == 2
    assert f"[dashboard] 127.0.0.1:{port}: Address already in use; choose another address or port" in done.stderr


def test_database_that_is_gone_is_said_and_the_page_recovers(coordinator, dashboard) -> None:
    moved = coordinator.database.with_name("moved.db")
    coordinator.database.rename(moved)
    answer = until(lambda: (a := dashboard.client.get("/api/overview")).status_code == 503 and a, "it is said")
    assert "No such file or directory; this page tries again by itself" in answer.json()["error"]
    refused = dashboard.post("/api/tasks/digits/pause")
    assert refused.status_code == 503
    assert not coordinator.database.exists(), "a change has not made another database"
    moved.rename(coordinator.database)
    assert dashboard.get("/api/overview")["tasks"][0]["task"] == "digits"


def test_streams_and_connections_are_bounded_and_no_one_else_waits_for_them(coordinator, dashboard, port) -> None:
    with ExitStack() as open_ones:
        for _ in range(MOST_STREAMS):
            open_ones.enter_context(dashboard.client.stream("GET", "/api/events"))
        refused = dashboard.client.get("/api/events")
        assert (refused.status_code, refused.json()["error"][:26]) == (503, "64 event streams are open;")
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(MOST_CONNECTIONS)]
        until(lambda: any(_is_closed(each) for each in silent), "one too many is closed")
        dashboard.client.post("/api/tasks/digits/pause", json={})
        assert coordinator.tasks("list")[0]["paused"], "who is connected is answered"
        for each in silent:
            each.close()
    until(lambda: dashboard.client.get("/api/refused").status_code == 200, "there is room again")
    assert coordinator.exit_status() is None


def _is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_pages_of_a_coordinator_that_is_stopped_only_show(coordinator, dashboard) -> None:
    coordinator.stop()
    command = [sys.executable, "-m", "workbench.program", "dashboard", "--config", str(coordinator.configuration)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as looking:
        assert looking.stdout is not None
        address = looking.stdout.readline().split()[0]
        looker = AskedDashboard(int(address.rpartition(":")[2]), dict(dashboard.client.headers))
        assert looker.get("/api/overview")["tasks"][0]["task"] == "digits"
        assert looker.get("/api/session")["may_change"] is False
        assert looker.post("/api/tasks/digits/pause").status_code == 403
        looking.send_signal(signal.SIGINT)
        assert looking.wait(timeout=60) == 0


@pytest.mark.long
def test_without_a_token_the_pages_look_alone(tmp_path, broker, coordinator, dashboard) -> None:
    with coordinator.journal() as journal:
        assert DeviceRegistry(journal.engine).devices() == []
    coordinator.stop()
    text = coordinator.configuration.read_text()
    coordinator.configuration.write_text("".join(line for line in text.splitlines(True) if "token_file" not in line))
    coordinator.start_serving()
    anybody = AskedDashboard(int(dashboard.address.rpartition(":")[2]))
    until(anybody.answers, "it answers")
    assert anybody.get("/api/session")["may_change"] is False
    assert anybody.get("/api/overview")["tasks"][0]["paused"] is False
    refused = anybody.post("/api/tasks/digits/pause")
    assert (refused.status_code, "token_file" in refused.text) == (403, True)
    assert anybody.client.get("/api/tasks/digits/model").status_code == 403
