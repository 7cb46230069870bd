"""The lab's start script: a container that is made again keeps the name that its key is bound to."""

import os
import shutil
import subprocess
from pathlib import Path

LAB = Path(__file__).parents[2] / "docker" / "lab"
PROGRAM = """#!/bin/sh
case $1 in
keygen) echo "a key" > "$2" ;;
run) grep '^device = ' agent.toml ;;
esac
"""


def started_as(host: str, folder: Path, state: Path) -> str:
    """The device line of the agent.toml with which the agent is started in a container of that host name."""
    for name, text in {"edge-agent": PROGRAM, "hostname": f"#!/bin/sh\necho {host}\n"}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    variables = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "COORDINATOR_KEY": "ab" * 32,
        "STATE_FOLDER": str(state),
        "LAB": str(LAB),
    }
    command = [shutil.which("sh") or "sh", str(LAB / "start-agent.sh")]
    return subprocess.run(command, env=variables, check=True, capture_output=True, text=True).stdout.strip()


def test_container_that_is_made_again_has_the_name_of_the_first(tmp_path: Path) -> None:
    state, other = tmp_path / "state", tmp_path / "other"
    state.mkdir()
    other.mkdir()
    assert started_as("0a1b2c", tmp_path, state) == 'device = "0a1b2c"'
    assert started_as("3d4e5f", tmp_path, state) == 'device = "0a1b2c"'
    assert started_as("3d4e5f", tmp_path, other) == 'device = "3d4e5f"'


def test_name_that_a_full_disk_kept_from_being_written_is_written_at_the_next_start(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "device-name").touch()
    assert started_as("0a1b2c", tmp_path, state) == 'device = "0a1b2c"'
    assert started_as("3d4e5f", tmp_path, state) == 'device = "0a1b2c"'
