"""What the machine is that this runs on."""

import os
import platform
from pathlib import Path

import psutil

from edge_agent.profiles import Board
from fleet_protocol.limits import MIB

MODEL = Path("/proc/device-tree/model")
"""Ends with a zero byte; machines without a device tree have none."""


def this_board() -> Board:
    """Its model, architecture, cores that this process may use, and memory."""
    try:
        model = MODEL.read_text(encoding="utf-8", errors="replace").rstrip("\0\n")
    except OSError:
        model = ""
    cores = len(os.sched_getaffinity(0))
    return Board(model, platform.machine(), cores, psutil.virtual_memory().total / MIB)
