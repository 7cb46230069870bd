"""Commands end quietly where whoever reads their output has left, as `head` does after some lines."""

import os
import subprocess
import sys

import pytest

from fleet_host.command_line import READER_LEFT
from tests.support.process import environment


@pytest.mark.parametrize("program", ["edge_agent.cli", "broker_coordinator.cli"])
def test_command_whose_output_nobody_reads_ends_without_a_word(program, tmp_path):
    (tmp_path / "a.key").touch(mode=0o600)
    (tmp_path / "a.key").write_text("ab" * 32)
    assert unread(program, "key", str(tmp_path / "a.key")) == (READER_LEFT, b"")


def test_setup_whose_output_nobody_reads_blames_no_disk(tmp_path):
    command = ("broker_coordinator.cli", "setup", "--folder", str(tmp_path), "--host", "localhost", "--dry-run")
    assert unread(*command, PYTHONUNBUFFERED="1") == (READER_LEFT, b"")


def unread(program, *words, **more):
    """How a command ends, and what it complains of, when its output is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-P", "-m", program, *words]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=environment() | more, check=False)
    os.close(writing)
    return ended.returncode, ended.stderr
