"""How long a recipe's code may take."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_protocol.errors import ConfigurationError
from workbench.export.recipe import model_code
from workbench.export.recipe.model_code import model_code as running

OTHERS = 7
MODEL = Path("model.py")


@pytest.fixture
def busy_core() -> Iterator[None]:
    """All of this process on one core, where others never rest."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    others = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(OTHERS)]
    yield
    for each in others:
        each.kill()
        each.wait()
    os.sched_setaffinity(0, before)


def work(seconds: float) -> None:
    """So much of a core."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_code_that_waits_for_a_core_has_the_time_that_it_has_alone(monkeypatch, busy_core):
    monkeypatch.setattr(model_code, "LONGEST_SECONDS", 1)
    began = time.monotonic()
    with running(MODEL, "forward()"):
        work(0.5)
    assert time.monotonic() - began > 1, "else this shows nothing"


def test_code_that_works_for_longer_is_ended_on_a_busy_core_too(monkeypatch, busy_core):
    monkeypatch.setattr(model_code, "LONGEST_SECONDS", 1)
    with pytest.raises(ConfigurationError, match="has not ended after 1 s"), running(MODEL, "forward()"):
        work(3600)


def test_code_that_waits_for_something_else_is_ended(monkeypatch):
    monkeypatch.setattr(model_code, "LONGEST_SECONDS", 1)
    with pytest.raises(ConfigurationError, match="has not ended after 1 s"), running(MODEL, "forward()"):
        time.sleep(3600)
