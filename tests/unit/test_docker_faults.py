"""Faults are sentences: each is read as it is meant, or refused with what to write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol.errors import ConfigurationError
from workbench.docker_fleet.faults import ACTIONS, Fault, not_waited_for, read_faults
from workbench.docker_fleet.names import FleetNames

DEVICES, SERVICES, LONGEST = ["kitchen-1", "kitchen-2"], ["broker", "coordinator"], 600.0
NAMES = FleetNames("edgeflock-0")


def read(*sentences: str) -> list[Fault]:
    return read_faults(sentences, DEVICES, SERVICES, LONGEST)


def test_faults_come_in_the_order_in_which_they_begin() -> None:
    found = read("kill kitchen-2 after 30 s", "pause kitchen-1 after 20 s for 1.5 s", "cut broker after 25s for 3s")
    assert found == [
        Fault("pause", "kitchen-1", 20.0, 1.5),
        Fault("cut", "broker", 25.0, 3.0),
        Fault("kill", "kitchen-2", 30.0, None),
    ]


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("", "write ACTION NAME after N s"),
        ("pause kitchen-1", "write ACTION NAME after N s"),
        ("pause kitchen-1 after 20", "write ACTION NAME after N s"),
        ("pause kitchen-1 after -3 s", "write ACTION NAME after N s"),
        ("pause kitchen-1 after nan s", "write ACTION NAME after N s"),
        ("pause kitchen-1 after 3 s; rm -rf /", "write ACTION NAME after N s"),
        ("melt kitchen-1 after 3 s", "no fault 'melt'; there are stop, pause, kill, cut, fill"),
        ("pause cellar after 3 s", "nothing is called 'cellar'; there are kitchen-1, kitchen-2, broker, coordinator"),
        ("pause disks after 3 s", "nothing is called 'disks'"),
        ("fill broker after 3 s", "fill is for devices alone"),
        ("pause kitchen-1 after 600 s", "it ends after 600 s, and the run after 600 s at most"),
        ("pause kitchen-1 after 590 s for 20 s", "it ends after 610 s"),
    ],
)
def test_sentence_that_is_no_fault_is_named_with_what_to_write(sentence: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(sentence)
    assert repr(sentence) in str(caught.value)
    assert words in str(caught.value)


def test_in_a_large_fleet_an_unknown_name_is_answered_with_some_of_those_that_there_are() -> None:
    devices = [f"pi-{number}" for number in range(1, 901)]
    with pytest.raises(ConfigurationError) as caught:
        read_faults(["pause pi after 3 s"], devices, SERVICES, LONGEST)
    assert "there are pi-1, pi-2, pi-3, pi-4, pi-5, pi-6 ... pi-897" in str(caught.value)
    assert str(caught.value).endswith("broker, coordinator, 902 in all")


def test_two_faults_of_one_target_may_not_overlap() -> None:
    with pytest.raises(ConfigurationError, match="kitchen-1 has one until 35 s, and another after 22 s"):
        read("kill kitchen-1 after 22 s for 1 s", "pause kitchen-1 after 20 s for 15 s")
    with pytest.raises(ConfigurationError, match="kitchen-1 has one until the run ends"):
        read("kill kitchen-1 after 22 s", "pause kitchen-1 after 300 s for 15 s")
    assert len(read("kill kitchen-1 after 36 s", "pause kitchen-1 after 20 s for 15 s", "cut broker after 21 s")) == 3


@given(st.sampled_from(sorted(ACTIONS)), st.floats(0, 250), st.none() | st.floats(0, 250))
def test_every_fault_is_read_back_from_its_sentence(action: str, after: float, lasts: float | None) -> None:
    sentence = f"{action} kitchen-1 after {after:f} s" + ("" if lasts is None else f" for {lasts:f} s")
    (found,) = read(sentence)
    assert (found.action, found.target) == (action, "kitchen-1")
    assert found.after_seconds == pytest.approx(after, abs=1e-6)
    assert (found.lasts_seconds is None) == (lasts is None)
    assert found.end_seconds == (None if lasts is None else found.after_seconds + found.lasts_seconds)


def test_device_that_does_not_come_back_is_waited_for_until_its_fault_begins() -> None:
    faults = read("stop kitchen-1 after 30 s", "pause kitchen-2 after 5 s for 3 s")
    assert not_waited_for(faults, 29.0) == frozenset()
    assert not_waited_for(faults, 30.0) == {"kitchen-1"}


@pytest.mark.parametrize("action", ACTIONS)
def test_every_fault_begins_and_ends_at_its_own_device_alone(action: str) -> None:
    for command in (ACTIONS[action].begin(NAMES, "kitchen-1"), ACTIONS[action].end(NAMES, "kitchen-1")):
        assert any(word.endswith("kitchen-1") or "/kitchen-1/" in word for word in command)
        assert "kitchen-2" not in " ".join(command)
