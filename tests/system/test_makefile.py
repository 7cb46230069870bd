"""`make` where Python's own parts are missing: it says what to install, and mends what it left half made."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.waiting import DEADLINE_SECONDS

ROOT = Path(__file__).parents[2]
PYTHON = """#!/bin/sh
# A Python whose parts are files beside it, each there or not.
parts=$(dirname "$(readlink -f "$0")")
case "$*" in
"-c import ensurepip") [ -e "$parts/ensurepip" ] ;;
"-c import pip") [ -e "$(dirname "$0")/pip" ] ;;
"-m venv --clear "*)
    rm -rf "$4"
    mkdir -p "$4/bin"
    ln -s "$parts/python" "$4/bin/python"
    [ -e "$parts/works" ] && touch "$4/bin/pip"
    ;;
*) exit 9 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "tests" / "support").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "support" / "system_packages.sh", tmp_path / "tests" / "support")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "python").write_text(PYTHON)
    (tmp_path / "parts" / "python").chmod(0o755)
    return tmp_path


def make(checkout: Path, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess[str]:
    command = ["make", "-C", checkout, f"PYTHON={checkout}/parts/python", ".venv/.made"]
    environment = os.environ | {"PATH": path}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False, env=environment
    )


def test_environment_that_was_left_half_made_is_made_anew(checkout) -> None:
    (checkout / "parts" / "ensurepip").touch()
    assert make(checkout).returncode != 0
    assert (checkout / ".venv" / "bin" / "python").exists()
    (checkout / "parts" / "works").touch()
    done = make(checkout)
    assert done.returncode == 0, done.stderr
    assert (checkout / ".venv" / "bin" / "pip").exists()
    assert "up to date" in make(checkout).stdout


def test_missing_part_of_debians_python_is_named_before_anything_is_made(checkout) -> None:
    tools = checkout / "tools"
    tools.mkdir()
    for tool in ("sh", "make", "dirname", "readlink", "grep"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    (tools / "dpkg-query").write_text("#!/bin/sh\nexit 1\n")
    (tools / "id").write_text("#!/bin/sh\necho 1000\n")
    (tools / "apt-get").write_text("#!/bin/sh\nexit 1\n")
    for tool in ("dpkg-query", "id", "apt-get"):
        (tools / tool).chmod(0o755)
    done = make(checkout, str(tools))
    assert done.returncode != 0
    assert "run: sudo apt-get install python3-venv" in done.stderr
    assert not (checkout / ".venv").exists()
