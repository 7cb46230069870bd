"""A fleet in real containers, of a daemon of its own: it learns under its profiles' limits while faults strike."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.profiles import read_profile
from tests.support.docker_host import BASE, WORKBENCH, DockerHost
from tests.support.process import environment
from tests.support.waiting import until
from workbench.docker_fleet.compose import IMAGES
from workbench.docker_fleet.limits import HOST_CORE_MFLOPS

pytestmark = [
    pytest.mark.long,
    pytest.mark.quiet,
    pytest.mark.skipif(os.geteuid() != 0, reason="a Docker daemon needs root"),
]

RUN_SECONDS = 300.0
FLEET = """
[docker]
faults = ["pause zero-1 after 15 s for 10 s", "kill middle-1 after 20 s for 3 s", "fill zero-2 after 10 s for 10 s"]
deliver_seconds = 60

[[devices]]
profile = "pi-zero-2w"
name = "zero"
count = 4

[[devices]]
profile = "pi-4"
name = "middle"
count = 2

[[devices]]
profile = "pi-5"
name = "large"
count = 2
"""
KINDS = {"zero-1": "pi-zero-2w", "middle-2": "pi-4", "large-1": "pi-5"}


class Run:
    """`edgeflock simulate --docker` in a process of its own."""

    def __init__(self, host: DockerHost, folder: Path, *options: str) -> None:
        (folder / "fleet.toml").write_text(FLEET)
        self.out = folder / "out"
        self._said = folder / "said"
        command = [
            *host.inside,
            sys.executable,
            "-P",
            "-m",
            "workbench.cli",
            "simulate",
            "--docker",
            "--fleet",
            "fleet.toml",
        ]
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                [*command, "--out", "out", *options],
                cwd=folder,
                stdout=said,
                stderr=said,
                env=environment() | host.variables,
            )

    def says(self, words: str) -> None:
        """Wait for it."""
        until(lambda: words in self.said or self.process.poll() is not None, words, RUN_SECONDS)
        assert words in self.said

    @property
    def said(self) -> str:
        """Everything, on both outputs."""
        return self._said.read_text()

    def ended(self) -> int:
        """Its exit status."""
        return self.process.wait(RUN_SECONDS)

    def summary(self) -> dict[str, Any]:
        return dict(json.loads((self.out / "summary.json").read_text()))


@pytest.fixture
def run(host: DockerHost, tmp_path: Path) -> Iterator[Run]:
    started = Run(host, tmp_path, "--fault", "cut large-1 after 25 s for 10 s")
    yield started
    if started.process.poll() is None:
        started.process.terminate()
        started.ended()


def inspected(host: DockerHost, device: str) -> dict[str, Any]:
    (name,) = host.docker("ps", "--filter", f"name={device}", "--format", "{{.Names}}").split()
    return dict(json.loads(host.docker("inspect", name))[0])


def test_eight_devices_learn_under_their_limits_while_faults_strike_and_every_update_is_accounted_for(
    host, run
) -> None:
    run.says("large-1 is cut off from the network")
    for device, profile in KINDS.items():
        found, wanted = inspected(host, device)["HostConfig"], read_profile(profile)
        assert found["Memory"] == found["MemorySwap"] == wanted.device.memory_mib * 1024 * 1024
        share = min(wanted.simulation.training_mflops / HOST_CORE_MFLOPS, os.cpu_count() or 1)
        assert found["NanoCpus"] == round(share, 2) * 1e9
        assert found["ReadonlyRootfs"]
        assert found["CapDrop"] == ["ALL"]
    host.docker("compose", "--file", str(run.out / "compose.yaml"), "config", "--quiet")
    assert run.ended() == 0, run.said
    summary = run.summary()
    assert summary["accuracy"] >= 0.93, summary
    assert (summary["updates_lost"], summary["updates_duplicated"], summary["updates_pending"]) == (0, 0, 0), summary
    page = (run.out / "report.html").read_text()
    assert "1,438 of 1,438" in page, "every sample was stored"
    for event in (
        *("zero-1 stands still", "zero-1 goes on", "middle-1 is killed", "middle-1 is started again"),
        *("large-1 is cut off", "large-1 is back", "zero-2 has a full disk", "zero-2 has room"),
    ):
        assert event in page
    assert "sample_not_stored" in (run.out / "fleet.log").read_text(), "the full disk was met"
    assert host.left() == []


def test_ctrl_c_ends_in_order_and_takes_everything_down(host, run) -> None:
    run.says("zero-1 stands still")
    run.process.send_signal(signal.SIGINT)
    assert run.ended() == 0, run.said
    summary = run.summary()
    assert summary["stopped_early"]
    assert (summary["updates_lost"], summary["updates_duplicated"]) == (0, 0), summary
    assert host.left() == []


def test_ctrl_c_before_the_fleet_is_up_leaves_nothing(host, run) -> None:
    until(lambda: "-broker" in host.docker("ps", "--format", "{{.Names}}"), "the broker's container runs")
    run.process.send_signal(signal.SIGINT)
    assert run.ended() == 2
    assert "stopped before the fleet was up" in run.said
    assert host.left() == []


def test_fleet_whose_coordinator_can_not_start_is_taken_down_with_dockers_words(host, tmp_path) -> None:
    host.docker("tag", IMAGES["coordinator"], "aside")
    host.docker("tag", BASE, IMAGES["coordinator"])
    broken = Run(host, tmp_path)
    assert broken.ended() == 2
    host.docker("tag", "aside", IMAGES["coordinator"])
    assert "edgeflock: docker compose" in broken.said
    assert "Traceback" not in broken.said
    assert host.left() == []


def test_fleet_that_is_kept_goes_on_and_is_in_nobodys_way(host, tmp_path) -> None:
    kept = Run(host, tmp_path, "--keep", "--fault", "stop large-1 after 0 s")
    kept.says("large-1 is shut down")
    kept.process.send_signal(signal.SIGINT)
    assert kept.ended() == 0, kept.said
    down = kept.said.partition("take it down: ")[2].strip()
    again = Run(host, tmp_path)
    assert again.ended() == 2
    assert "a fleet of this folder is up" in again.said
    assert len(host.docker("ps", "--quiet").split()) == 11
    subprocess.run(
        ["sh", "-c", down], cwd=tmp_path, env=environment() | host.variables, check=True, capture_output=True
    )
    assert host.left() == []
    shutil.rmtree(tmp_path / "out")


def test_workbench_image_is_the_command_edgeflock(host) -> None:
    assert "pi-zero-2w" in host.docker("run", "--rm", "--network", "none", "--read-only", WORKBENCH, "profiles", "list")


def test_image_that_is_missing_is_named_with_the_command_that_builds_it(host, tmp_path) -> None:
    host.docker("tag", IMAGES["agent"], "aside")
    host.docker("rmi", IMAGES["agent"])
    lacking = Run(host, tmp_path)
    assert lacking.ended() == 2
    host.docker("tag", "aside", IMAGES["agent"])
    host.docker("rmi", "aside")
    assert f"docker build -f docker/Dockerfile --target agent -t {IMAGES['agent']} ." in lacking.said
