"""`edgeflock demo --gan`: weak devices of two kinds train generators, and what each cluster draws is shown."""

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

DIGITS, LETTERS = {"pi-01", "pi-03", "pi-05"}, {"pi-02", "pi-04", "pi-06"}
KIND = dataclasses.replace(GAN, sensing_seconds=10.0, longest_seconds=480.0)
LAST_VERSION = 3
"""Behind the second one, clusters are looked for."""


class Watcher:
    """Kills the helper at the first version, and ends the run at the last."""

    def __init__(self, folder: Path) -> None:
        self.demo = Demo(DemoOptions(6, 0, folder, "mosquitto", KIND), self.show)
        self.has_killed = False

    def show(self, snapshot: Snapshot) -> None:
        newest = max((group.version for group in snapshot.drawn), default=0)
        if newest >= 1 and not self.has_killed:
            self.has_killed = True
            (helper,) = (each for each in psutil.Process().children() if "helper.toml" in " ".join(each.cmdline()))
            helper.send_signal(signal.SIGKILL)
        if newest >= LAST_VERSION:
            self.demo.stop()


@pytest.mark.quiet
@pytest.mark.long
async def test_with_the_helper_killed_nothing_is_lost_and_every_device_is_shown_in_its_cluster(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    history = await Watcher(folder).demo.run()
    summary = history.summary
    assert summary.versions >= LAST_VERSION, history.events
    assert (summary.updates_lost, summary.updates_duplicated) == (0, 0), summary
    assert any("gateway was killed" in event for event in history.events)
    shown = [set(drawn.devices) for drawn in history.drawn]
    assert set().union(*shown) == DIGITS | LETTERS
    found = [names for names in shown if len(names) < len(DIGITS | LETTERS)]
    assert all(names <= DIGITS or names <= LETTERS for names in found), history.events
    names = {path.name for path in (folder / PICTURES).iterdir()}
    assert {PAGE, "version-00000-cluster-0.png"} < names
    page = render_report(history)
    for words in ("What each cluster draws", "How the pictures formed", "draw digits and letters", "pi-06"):
        assert words in page
    assert page.count('src="data:image/png;base64,') == 2 * len(shown)
