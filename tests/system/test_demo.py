"""`edgeflock demo` as a user runs it, with things going wrong in the middle of it."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.dashboard import AskedDashboard
from tests.support.process import environment
from tests.support.waiting import DEADLINE_SECONDS, until

RUN_SECONDS = 120.0


class DemoProcess:
    """A demo in a process of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self._output = folder.with_suffix(".out")
        command = [sys.executable, "-P", "-m", "workbench.cli", "demo", "--out", str(folder), *options]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, env=environment())

    def child(self, *words: str) -> psutil.Process:
        """The child whose command line holds all these words."""
        for child in psutil.Process(self._process.pid).children():
            line = " ".join(child.cmdline())
            if all(word in line for word in words):
                return child
        raise LookupError(words)

    def learning(self) -> None:
        """Wait until the fleet has made some versions."""
        log = self.folder / "coordinator.log"
        until(
            lambda: self._process.poll() is not None or (log.exists() and log.read_text().count("version_made") >= 4),
            "four versions",
            seconds=RUN_SECONDS,
        )
        assert self._process.poll() is None, self.output()

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def summary(self) -> dict[str, Any]:
        """What it says at the end."""
        assert self._process.wait(timeout=RUN_SECONDS) == 0, self.output()
        assert (self.folder / "report.html").stat().st_size > 10_000
        return dict(json.loads((self.folder / "summary.json").read_text()))

    def output(self) -> str:
        """Everything it has printed."""
        return self._output.read_text()

    def end(self) -> None:
        """Leave nothing behind, whatever happened."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(timeout=DEADLINE_SECONDS)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., DemoProcess]]:
    started: list[DemoProcess] = []

    def start(*options: str) -> DemoProcess:
        started.append(DemoProcess(tmp_path / f"demo{len(started)}", *options))
        return started[-1]

    yield start
    for process in started:
        process.end()


def holds(summary: dict[str, Any]) -> None:
    """What a run guarantees, whatever was killed."""
    assert (summary["updates_lost"], summary["updates_duplicated"]) == (0, 0), summary
    assert summary["accuracy"] >= 0.9, summary
    assert summary["uplink_bytes"] * 20 <= summary["dense_uplink_bytes"], summary
    assert summary["updates_applied"] > 50, summary
    assert not summary["stopped_early"]


@pytest.mark.quiet
def test_with_each_kind_of_process_killed_in_the_middle_the_run_keeps_its_guarantees(demo) -> None:
    run = demo("--broker", "mosquitto")
    run.learning()
    for told, victim in {
        "pi-03 was killed": ("edge_agent.cli", "pi-03"),
        "coordinator was killed": ("broker_coordinator.cli",),
        "broker was killed": ("mosquitto",),
    }.items():
        run.child(*victim).send_signal(signal.SIGKILL)
        until(lambda told=told: told in run.output(), told)
    found = re.search(r"In a browser while it runs: http://127\.0\.0\.1:([0-9]+)", run.output())
    assert found is not None
    dashboard = AskedDashboard(int(found.group(1)))
    until(dashboard.answers, "the pages are back too")
    assert dashboard.get("/api/overview")["devices"]["approved"] == 8
    holds(run.summary())


@pytest.mark.quiet
@pytest.mark.long
def test_embedded_broker_serves_where_mosquitto_is_missing(demo) -> None:
    run = demo("--broker", "embedded", "--seed", "1")
    summary = run.summary()
    holds(summary)
    assert summary["broker"] == "embedded (amqtt)"
    assert "embedded (amqtt)" in run.output()


@pytest.mark.quiet
@pytest.mark.long
def test_weak_devices_learn_through_a_helper(demo) -> None:
    run = demo("--split", "--broker", "mosquitto")
    summary = run.summary()
    assert (summary["updates_lost"], summary["updates_duplicated"]) == (0, 0), summary
    assert summary["accuracy"] >= 0.8, summary
    assert summary["agents"] == 6
    assert summary["relayed_bytes"] > 1_000_000, summary
    assert "What devices left to their helper" in (run.folder / "report.html").read_text()


def test_ctrl_c_ends_in_order_and_still_writes_both_files(demo) -> None:
    run = demo("--broker", "embedded")
    run.learning()
    children = psutil.Process(run._process.pid).children(recursive=True)
    run.interrupt()
    summary = run.summary()
    assert summary["stopped_early"]
    assert (summary["updates_lost"], summary["updates_duplicated"]) == (0, 0)
    assert "stopped early" in run.output()
    assert not any(child.is_running() for child in children)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--agents", "64"), "--agents 64"),
        (("--broker", "nowhere"), "--broker 'nowhere'"),
        pytest.param(("--broker", "127.0.0.1:1"), "no broker answers", marks=pytest.mark.long),
    ],
)
def test_what_can_not_work_is_said_in_one_line(demo, options, named) -> None:
    run = demo(*options)
    assert run._process.wait(timeout=DEADLINE_SECONDS) == 2
    assert named in run.output()
    assert "Traceback" not in run.output()


def test_folder_with_other_files_is_left_alone(demo, tmp_path) -> None:
    (tmp_path / "demo0").mkdir()
    (tmp_path / "demo0" / "thesis.txt").write_text("precious")
    run = demo()
    assert run._process.wait(timeout=DEADLINE_SECONDS) == 2
    assert "contains files that no demo made" in run.output()
    assert (tmp_path / "demo0" / "thesis.txt").read_text() == "precious"
