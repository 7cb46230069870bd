"""Split learning with every program as it ships, and somebody on the broker who repeats, moves and renames messages."""

import contextlib
from collections.abc import Iterator, Sequence

import pytest

from fleet_protocol import topics
from fleet_protocol.limits import SESSION_BYTES
from fleet_protocol.sessions.frames import is_frame, session_of
from tests.support.broker import Broker
from tests.support.fleet import FLEET, SHARD
from tests.support.helper import HelperProcess, SplitAgent
from tests.support.split_fleet import SplitFleet
from tests.support.waiting import until
from tests.support.wiretap import Wiretap

STEPS, SAMPLES = 150, 16
ROUND_REQUESTS = 2 * STEPS
FRAMES = 20
"""Of each topic, that the intruder makes use of."""
ROUNDS_SECONDS = 240.0
"""Some thousand messages: more than `until` waits for on a busy machine."""
KITCHEN, ATTIC, HELPER = "kitchen", "attic", "cellar-pi"
DEVICES = (KITCHEN, ATTIC)
DROPPED, REFUSED = "edgeflock_relay_dropped_frames_total", "edgeflock_relay_refused_total"


class Intruder:
    """Hears everything that the broker passes on, and says again what it has heard, wherever it likes."""

    def __init__(self, broker: Broker) -> None:
        self._wiretap = Wiretap(broker)
        self._said: set[tuple[str, bytes]] = set()

    def heard(self, topic: str, session: bytes = b"") -> list[bytes]:
        """The latest frames that others have sent on a topic, of a session."""
        frames = [data for data in self._of_others(topic) if is_frame(data)]
        return [data for data in frames if session in (b"", session_of(data))][-FRAMES:]

    def signed(self, topic: str) -> list[bytes]:
        """All signed messages of others on it: openings, grants, introductions, endings."""
        return [data for data in self._of_others(topic) if not is_frame(data)]

    def forget(self) -> None:
        """What it has heard."""
        self._wiretap.received.clear()

    def say(self, topic: str, messages: Sequence[bytes]) -> int:
        """Publish them; returns how many."""
        self._said |= {(topic, data) for data in messages}
        for data in messages:
            self._wiretap.publish(topic, data)
        return len(messages)

    def close(self) -> None:
        self._wiretap.close()

    def _of_others(self, topic: str) -> list[bytes]:
        received = list(self._wiretap.received)
        return [data for each, data in received if each == topic and (each, data) not in self._said]


@pytest.fixture
def intruder(broker: Broker) -> Iterator[Intruder]:
    intruder = Intruder(broker)
    yield intruder
    intruder.close()


def to_relay(name: str) -> str:
    return topics.session(FLEET, SHARD, name)


def from_relay(name: str) -> str:
    return topics.relayed(FLEET, SHARD, name)


def renamed(frames: Sequence[bytes], session: bytes) -> list[bytes]:
    """The same with another session in their headers."""
    return [data[:2] + session + data[2 + SESSION_BYTES :] for data in frames]


def intrude_on_the_relay(intruder: Intruder, sessions: Sequence[bytes]) -> int:
    """Frames of one session as another's, by the topic, by the header and by both; returns how many."""
    own, other = sessions
    asked, answered = intruder.heard(to_relay(KITCHEN), own), intruder.heard(to_relay(HELPER), own)
    return (
        intruder.say(to_relay(ATTIC), asked)
        + intruder.say(to_relay(HELPER), asked)
        + intruder.say(to_relay(KITCHEN), renamed(asked, other))
        + intruder.say(to_relay(ATTIC), renamed(asked, other))
        + intruder.say(to_relay(HELPER), renamed(answered, other))
        + intruder.say(to_relay(ATTIC), answered)
    )


def intrude_behind_the_relay(intruder: Intruder, sessions: Sequence[bytes]) -> None:
    """The same straight to the ends, as if the relay had passed it on."""
    own, other = sessions
    asked, answered = intruder.heard(from_relay(HELPER), own), intruder.heard(from_relay(KITCHEN), own)
    for frames in (answered, renamed(answered, other), intruder.heard(to_relay(HELPER), other)):
        intruder.say(from_relay(ATTIC), frames)
    for frames in (renamed(asked, other), intruder.heard(to_relay(KITCHEN), own)):
        intruder.say(from_relay(HELPER), frames)


def repeat_everything(intruder: Intruder) -> int:
    """On its own topics, frames and signed messages; returns how many frames the relay hears."""
    for name in (*DEVICES, HELPER):
        for topic in (to_relay(name), from_relay(name)):
            intruder.say(topic, intruder.signed(topic))
        intruder.say(from_relay(name), intruder.heard(from_relay(name)))
    return sum(intruder.say(to_relay(name), intruder.heard(to_relay(name))) for name in (*DEVICES, HELPER))


def known_fleet(fleet: SplitFleet) -> tuple[HelperProcess, SplitAgent, SplitAgent]:
    """Both devices have had a round, so the relay has heard of them."""
    fleet.begin(steps=STEPS, buffer_size=3)
    helper = fleet.helper(HELPER)
    kitchen, attic = (fleet.agent(name, samples=SAMPLES, new_samples=SAMPLES) for name in DEVICES)
    finished(1, kitchen, attic)
    return helper, kitchen, attic


def finished(rounds: int, *devices: SplitAgent) -> None:
    for device in devices:
        until(
            lambda each=device: each.status()["accepted_updates"] == rounds,
            f"{device.name}'s round is accepted",
            ROUNDS_SECONDS,
        )


def test_messages_of_one_session_are_of_no_use_in_another_or_again(fleet, intruder) -> None:
    helper, *devices = known_fleet(fleet)
    until(lambda: helper.status()["sessions"] == 0, "both sessions are over", ROUNDS_SECONDS)
    intruder.forget()
    for device in devices:
        device.feed(SAMPLES, first=SAMPLES)
    with contextlib.ExitStack() as paused:
        for device in devices:
            topic = from_relay(device.name)
            until(
                lambda topic=topic: len(intruder.heard(topic)) == FRAMES, f"{device.name} is in the middle of a round"
            )
            paused.enter_context(device.paused())
        assert helper.status()["sessions"] == len(DEVICES)
        sessions = [session_of(intruder.heard(from_relay(name))[-1]) for name in DEVICES]
        strange = fleet.relay_counts(REFUSED)["unknown_key"]
        intruding = intrude_on_the_relay(intruder, sessions)
        foreign = intruder.say(
            to_relay(ATTIC), [*intruder.signed(to_relay(KITCHEN)), *intruder.signed(to_relay(HELPER))]
        )
        until(lambda: fleet.relay_counts(REFUSED)["unknown_key"] == strange + foreign, "others' signatures are refused")
        assert fleet.relay_counts(DROPPED)["not_its_session"] == intruding
        intrude_behind_the_relay(intruder, sessions)
        repeat_everything(intruder)
    finished(2, *devices)
    until(lambda: helper.status()["sessions"] == 0, "both sessions are over", ROUNDS_SECONDS)
    assert helper.status()["steps"] == 2 * ROUND_REQUESTS * len(DEVICES), "no request was answered twice"
    assert fleet.relay_counts(DROPPED)["not_its_session"] == intruding

    before = fleet.relay_counts(DROPPED)["no_session"]
    repeated = repeat_everything(intruder)
    until(lambda: fleet.relay_counts(DROPPED)["no_session"] >= before + repeated, "frames of before find no session")
    for device in devices:
        device.feed(SAMPLES, first=2 * SAMPLES)
    finished(3, *devices)
    assert helper.status()["steps"] == 3 * ROUND_REQUESTS * len(DEVICES)
    for device in devices:
        assert "event=helper_lost" not in device.log()
        assert "event=round_failed" not in device.log()
    verdict = fleet.audited()
    assert (verdict.lost, verdict.duplicated) == (0, 0)
