"""Runs a bundle's graphs in a process of their own, which may crash or hang."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from fleet_host.child_process import bound
from fleet_protocol.errors import ConfigurationError

LONGEST_SECONDS = 300

Report = TypeVar("Report", bound=msgspec.Struct)


def run_child(module: str, arguments: Sequence[Path], report: type[Report], task: str) -> Report:
    """What a module of this folder prints as JSON when it is run with these arguments.

    Raises:
        ConfigurationError: the graphs of the task don't run, or not within `LONGEST_SECONDS`.
    """
    command = bound([sys.executable, "-P", "-m", module, *map(str, arguments)])
    try:
        run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=LONGEST_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ConfigurationError(f"{task}: a round takes over {LONGEST_SECONDS} s here") from error
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ConfigurationError(f"{task}: the training graph does not run: {reason}") from error
    return msgspec.json.decode(run.stdout, type=report)
