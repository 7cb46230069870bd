"""The lab's start scripts: a container that is made again keeps the name that its key is bound to."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

LAB = Path(__file__).parents[2] / "docker" / "lab"
PROGRAM = """#!/bin/sh
case $1 in
keygen) echo "a key" > "$2" ;;
run) grep '^device = ' "$3" ;;
esac
"""


@dataclass(frozen=True, slots=True)
class Script:
    """What starts a program in its container, and what the names of such containers begin with."""

    file: str
    program: str
    prefix: str = ""

    def started_as(self, host: str, folder: Path, state: Path) -> str:
        """The device line of the configuration with which it is started in a container of that host name."""
        for name, text in {self.program: PROGRAM, "hostname": f"#!/bin/sh\necho {host}\n"}.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        variables = {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "COORDINATOR_KEY": "ab" * 32,
            "STATE_FOLDER": str(state),
            "LAB": str(LAB),
        }
        command = [shutil.which("sh") or "sh", str(LAB / self.file)]
        return subprocess.run(command, env=variables, check=True, capture_output=True, text=True).stdout.strip()


each_script = pytest.mark.parametrize(
    "script",
    [Script("start-agent.sh", "edge-agent"), Script("start-helper.sh", "edgeflock-helper", "helper-")],
    ids=lambda script: script.program,
)


@each_script
def test_container_that_is_made_again_has_the_name_of_the_first(script: Script, tmp_path: Path) -> None:
    state, other = tmp_path / "state", tmp_path / "other"
    state.mkdir()
    other.mkdir()
    assert script.started_as("0a1b2c", tmp_path, state) == f'device = "{script.prefix}0a1b2c"'
    assert script.started_as("3d4e5f", tmp_path, state) == f'device = "{script.prefix}0a1b2c"'
    assert script.started_as("3d4e5f", tmp_path, other) == f'device = "{script.prefix}3d4e5f"'


@each_script
def test_name_that_a_full_disk_kept_from_being_written_is_written_at_the_next_start(
    script: Script, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "device-name").touch()
    assert script.started_as("0a1b2c", tmp_path, state) == f'device = "{script.prefix}0a1b2c"'
    assert script.started_as("3d4e5f", tmp_path, state) == f'device = "{script.prefix}0a1b2c"'
