"""A short soak: a real fleet on a real Mosquitto, its processes killed at every place and at any moment."""

import json
import subprocess
import sys

import pytest

from tests.soak.places import ANY_MOMENT
from tests.soak.plan import DECK
from tests.support.process import TREE, environment

KILLS = 30


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(
            ("--database", "sqlite", "--variant", "ef21", "--full-disk-every", "15"), id="sqlite and a full disk"
        ),
        pytest.param(
            ("--database", "postgresql", "--variant", "ca2fl", "--wipe-broker"),
            id="postgresql and a broker that loses its disk",
            marks=pytest.mark.long,
        ),
    ],
)
def test_nothing_is_lost_or_applied_twice_and_a_replay_gives_every_version(variant) -> None:
    command = [sys.executable, "-m", "tests.soak.run", "--kills", str(KILLS), "--seed", "5", "--verbose", *variant]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=TREE, env=environment())
    assert ended.returncode == 0, ended.stderr
    summary = json.loads(ended.stdout.splitlines()[-1])
    assert (summary["lost"], summary["duplicated"], summary["undelivered"]) == (0, 0, 0), ended.stderr
    assert summary["replay_equal"], ended.stderr
    assert summary["estimates_equal"] is (True if "ef21" in variant else None), ended.stderr
    assert summary["full_disks"] == (KILLS // 15 if "sqlite" in variant else 0), ended.stderr
    assert summary["total_kills"] == KILLS
    assert set(summary["kills"]) == {f"{kind} {place or ANY_MOMENT}" for kind, place in DECK}
    assert summary["versions"] >= 3
