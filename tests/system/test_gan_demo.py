"""`edgeflock demo --gan`: two kinds of devices are told apart as they train, and what each cluster draws is shown."""

import dataclasses
import signal
from pathlib import Path

import psutil
import pytest

from workbench.demo.demo_kind import GAN
from workbench.demo.drawn.picture_folder import PAGE
from workbench.demo.monitor import Snapshot
from workbench.demo.run import PICTURES, Demo, DemoOptions
from workbench.report.html import render_report

DIGITS, LETTERS = ["pi-01", "pi-03", "pi-05"], ["pi-02", "pi-04", "pi-06"]
KIND = dataclasses.replace(GAN, sensing_seconds=10.0, longest_seconds=240.0)


class Watcher:
    """Kills the helper once clusters are found, and ends the run two versions later."""

    def __init__(self, folder: Path) -> None:
        self.demo = Demo(DemoOptions(6, 0, folder, "mosquitto", KIND), self.show)
        self.killed_at: int | None = None

    def show(self, snapshot: Snapshot) -> None:
        newest = max((group.version for group in snapshot.drawn), default=0)
        if self.killed_at is None and len(snapshot.drawn) == 2:
            self.killed_at = newest
            (helper,) = (each for each in psutil.Process().children() if "helper.toml" in " ".join(each.cmdline()))
            helper.send_signal(signal.SIGKILL)
        if self.killed_at is not None and newest >= self.killed_at + 2:
            self.demo.stop()


@pytest.mark.quiet
@pytest.mark.long
async def test_clusters_are_found_and_drawn_with_a_helper_killed_in_the_middle(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    watcher = Watcher(folder)
    history = await watcher.demo.run()
    summary = history.summary
    assert (summary.updates_lost, summary.updates_duplicated) == (0, 0), summary
    assert any("gateway was killed" in event for event in history.events)
    assert watcher.killed_at is not None, history.events
    assert [drawn.devices for drawn in history.drawn] == [DIGITS, LETTERS]
    assert {device.name: device.cluster for device in history.devices} == dict.fromkeys(DIGITS, 1) | dict.fromkeys(
        LETTERS, 2
    )
    assert summary.relayed_bytes > 1_000_000
    names = {path.name for path in (folder / PICTURES).iterdir()}
    assert {f"version-{history.drawn[0].version:05}-cluster-{cluster}.png" for cluster in (1, 2)} < names
    assert PAGE in names
    page = render_report(history)
    for words in (
        "What each cluster draws",
        "How the pictures formed",
        "pi-01, pi-03, pi-05",
        "draw digits and letters",
    ):
        assert words in page
    assert page.count('src="data:image/png;base64,') == 4
