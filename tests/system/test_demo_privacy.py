"""`edgeflock demo --privacy MODE`: a small fleet of real processes for each mode."""

import json
import subprocess
import sys

import pytest

from tests.support.process import environment

RUN_SECONDS = 240.0


def demo(folder, mode):
    command = [sys.executable, "-P", "-m", "workbench.cli", "demo", "--agents", "4", "--privacy", mode]
    done = subprocess.run(
        [*command, "--out", folder], capture_output=True, text=True, timeout=RUN_SECONDS, check=False, env=environment()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["updates_lost"], summary["updates_duplicated"]) == (0, 0), summary
    assert summary["versions"] > 0, summary
    assert summary["privacy"] == mode
    return summary, done.stdout, (folder / "report.html").read_text()


@pytest.mark.quiet
@pytest.mark.long
def test_samples_are_hidden_by_devices(tmp_path):
    summary, said, report = demo(tmp_path / "demo", "samples")
    (told,) = summary["told"]
    assert told["of"] == "sample"
    assert 0 < told["epsilon"] <= told["planned"] == 8.0
    assert "told of a single sample: epsilon" in said
    assert "told of a single sample" in report


@pytest.mark.quiet
@pytest.mark.long
def test_devices_are_hidden_by_the_coordinator(tmp_path):
    summary, said, report = demo(tmp_path / "demo", "devices")
    (told,) = summary["told"]
    assert told["of"] == "device"
    assert 0 < told["epsilon"] <= told["planned"] == 8.0
    assert told["versions_left"] == 40 - summary["versions"]
    assert "told of a single device: epsilon" in said
    assert f"{told['versions_left']} versions are left" in report


@pytest.mark.quiet
@pytest.mark.long
def test_single_updates_are_hidden_by_mask_helpers(tmp_path):
    summary, said, report = demo(tmp_path / "demo", "masks")
    assert summary["mask_helper_bytes"] > 0
    assert summary["accuracy"] > 0.5, summary
    assert "nobody has seen an update by itself" in said
    assert "seen by itself" in report
