"""Who is asked in a round: what a manifest says, for whichever devices are there, at the cost of those that are new."""

import hashlib
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol import cohort
from fleet_protocol.cohort import RoundDraws, asking, is_asked

NAMES = st.lists(st.text("abc", min_size=1, max_size=4), unique=True, max_size=20)


@given(st.lists(NAMES, min_size=1, max_size=4), st.integers(1, 5))
def test_threshold_is_the_same_whoever_was_asked_about_before(rounds, count):
    draws = RoundDraws("digits", 7)
    for devices in rounds:
        below = draws.asking(count, devices)
        assert below == asking(count, "digits", 7, devices)
        assert sum(is_asked("digits", 7, device, below) for device in devices) == min(count, len(devices))


def test_device_draws_once_in_a_round_however_often_the_manifest_is_made(monkeypatch):
    hashed = []

    def sha256(data: bytes):
        hashed.append(data)
        return hashlib.sha256(data)

    monkeypatch.setattr(cohort, "hashlib", SimpleNamespace(sha256=sha256))
    draws = RoundDraws("digits", 7)
    for there in (["pi-1", "pi-2"], ["pi-1", "pi-2"], ["pi-2", "pi-3"]):
        draws.asking(1, there)
    assert hashed == [b"digits/7/pi-1", b"digits/7/pi-2", b"digits/7/pi-3"]
