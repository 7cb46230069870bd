"""`edgeflock simulate` as a user runs it: a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

COMMAND = [sys.executable, "-m", "workbench.cli", "simulate"]
TREE = Path(__file__).parents[2]


def simulate(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *options], check=False, cwd=TREE, capture_output=True, text=True, timeout=300)


def test_two_processes_with_one_seed_write_the_same_bytes(tmp_path):
    options = ("--devices", "12", "--hours", "12", "--seed", "7", "--profile", "pi-4", "--profile", "pi-zero-2w")
    for folder in ("first", "second"):
        done = simulate(*options, "--score-every", "5", "--out", str(tmp_path / folder))
        assert done.returncode == 0, done.stderr
    for file in ("summary.json", "history.jsonl"):
        first = (tmp_path / "first" / file).read_bytes()
        assert first == (tmp_path / "second" / file).read_bytes()
    assert first.count(b"\n") > 5


def test_a_fleet_learns_real_digits():
    done = simulate("--devices", "8", "--hours", "48", "--data", "digits", "--target", "0.9", "--json")
    summary = json.loads(done.stdout)
    assert summary["reached"]["score"] >= 0.9
    assert summary["refused"] == {}
    assert summary["bytes_up"]["update"] == summary["uplink_bytes"]


def test_samples_of_a_file_are_learned_from(tmp_path):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, 400)
    bars = np.pad(np.repeat(np.eye(10), 6, axis=1), ((0, 0), (0, 4)))
    np.savez(tmp_path / "blobs.npz", inputs=bars[labels], labels=labels)
    done = simulate("--devices", "4", "--hours", "72", "--data", str(tmp_path / "blobs.npz"), "--json")
    assert json.loads(done.stdout)["score"] > 0.9


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--profile", "pi-9"), "pi-zero-2w"),
        (("--trace", "nowhere.csv"), "nowhere.csv"),
        (("--data", "nowhere.npz"), "nowhere.npz"),
        (("--data", "digits", "--devices", "900"), "--devices 900"),
        (("--task", "nothing"), "digits"),
        (("--devices", "100000", "--memory-mib", "1"), "--memory-mib"),
    ],
)
def test_what_can_not_be_simulated_is_said_in_one_line(options, named):
    done = simulate(*options)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr
