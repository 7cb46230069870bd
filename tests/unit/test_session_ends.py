"""Keys, frames, credit, repeats and fair queues of sessions, each by itself."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol.errors import ProtocolError
from fleet_protocol.kinds import SessionReason
from fleet_protocol.limits import MAX_REQUESTS_IN_FLIGHT, SESSION_CREDIT_BYTES
from fleet_protocol.sessions.channel import Channel
from fleet_protocol.sessions.device_end import ANSWER_SECONDS
from fleet_protocol.sessions.events import Answered, Closed, Ended, Requested
from fleet_protocol.sessions.flow import ReceivingCredit, SendingCredit
from fleet_protocol.sessions.frames import (
    CHUNK_CONTENT_BYTES,
    MAX_CONTENT_BYTES,
    MAX_UNFINISHED_BYTES,
    Assembly,
    Frame,
    FrameType,
    chunks_of,
    read_frame,
    session_of,
)
from fleet_protocol.sessions.helper_end import MAX_KEPT_BYTES
from fleet_protocol.sessions.lifecycle import TRANSITIONS, State
from fleet_protocol.sessions.round_trip import LONGEST_TIMEOUT_SECONDS, SHORTEST_TIMEOUT_SECONDS, RoundTrip
from fleet_protocol.sessions.secrecy import Direction, Introduced, ephemeral_of, seal, session_keys, unseal
from session_relay.relay.core.fair_queues import FairQueues, WaitingFrame
from session_relay.relay.core.lifecycle import TRANSITIONS as RELAYED
from session_relay.relay.core.lifecycle import State as Relayed
from session_relay.relay.core.limits import MAX_DEVICE_BACKLOG_BYTES, QUANTUM_BYTES
from tests.support.sessions_world import World

SESSION, KEYS, HOP = bytes(16), (bytes(32), bytes([1]) * 32), bytes([2]) * 32


def channel(direction: Direction) -> Channel:
    return Channel(SESSION, direction, KEYS, HOP, 0.0)


@given(st.integers(0, 3 * CHUNK_CONTENT_BYTES), st.randoms())
def test_message_comes_out_of_its_chunks_in_any_order_repeated_or_not(size, order: random.Random) -> None:
    content = bytes([size % 251]) * size
    sender, receiver = channel(Direction.FROM_DEVICE), channel(Direction.FROM_HELPER)
    sender.send(sender.seal(1, content))
    frames = list(sender.frames(0.0))
    frames += frames[: size % 3]
    order.shuffle(frames)
    assert content in [receiver.completed_by(receiver.receive(frame, 0.0)) for frame in frames]


def test_message_of_the_largest_size_passes_and_a_larger_one_is_refused_at_its_sender() -> None:
    assert len(chunks_of(bytes(MAX_CONTENT_BYTES))) == 64
    with pytest.raises(ValueError, match="at most"):
        chunks_of(bytes(MAX_CONTENT_BYTES + 1))


@pytest.mark.parametrize("changed", ["number", "index", "count", "direction", "session"])
def test_chunk_decrypts_in_its_place_alone(changed) -> None:
    place = {"number": 5, "index": 1, "count": 3}
    sealed = seal(KEYS[0], **place, content=b"secret")
    key = KEYS[1] if changed in ("direction", "session") else KEYS[0]
    other = place | ({changed: place[changed] + 1} if changed in place else {})
    with pytest.raises(ProtocolError, match="not from this session"):
        unseal(key, **other, sealed=sealed)


def test_keys_differ_by_session_direction_and_each_identity() -> None:
    secrets = bytes([1]) * 32, bytes([2]) * 32
    device, helper = Introduced(bytes(32), ephemeral_of(secrets[0])), Introduced(bytes(32), ephemeral_of(secrets[1]))
    own = session_keys(SESSION, secrets[0], helper.ephemeral, device, helper)
    assert own == session_keys(SESSION, secrets[1], device.ephemeral, device, helper)
    others = [
        session_keys(bytes([1]) * 16, secrets[0], helper.ephemeral, device, helper),
        session_keys(SESSION, secrets[0], helper.ephemeral, Introduced(bytes([9]) * 32, device.ephemeral), helper),
        session_keys(SESSION, secrets[0], helper.ephemeral, device, Introduced(bytes([9]) * 32, helper.ephemeral)),
    ]
    assert len({key for pair in (own, *others) for key in pair}) == 8


@pytest.mark.parametrize("public", [bytes(32), b"\x01" + bytes(31)])
def test_public_key_that_gives_everybody_the_same_secret_is_refused(public) -> None:
    end = Introduced(bytes(32), bytes(32))
    with pytest.raises(ProtocolError, match="no X25519 public key"):
        session_keys(SESSION, bytes([1]) * 32, public, end, end)


def test_unfinished_messages_are_bounded_and_the_latest_give_way() -> None:
    assembly = Assembly(lambda frame: frame.body)
    body = bytes(CHUNK_CONTENT_BYTES)
    for number in range(1, 2 * MAX_REQUESTS_IN_FLIGHT):
        for index in range(7):
            assembly.take(Frame(FrameType.CONTENT, SESSION, Direction.FROM_DEVICE, 0, 0, number, index, 8, body))
        assert assembly._bytes <= MAX_UNFINISHED_BYTES
    last = Frame(FrameType.CONTENT, SESSION, Direction.FROM_DEVICE, 0, 0, 1, 7, 8, body)
    assert assembly.take(last) == body * 8


def test_sender_stops_at_its_credit_and_goes_on_with_more() -> None:
    sender, receiver = channel(Direction.FROM_DEVICE), channel(Direction.FROM_HELPER)
    for number in (1, 2):
        sender.send(sender.seal(number, bytes(MAX_CONTENT_BYTES)))
    first = list(sender.frames(0.0))
    assert sum(len(read_frame(frame).body) for frame in first) <= SESSION_CREDIT_BYTES
    assert list(sender.frames(0.5)) == []
    for frame in first:
        receiver.receive(frame, 0.5)
    for credit in receiver.frames(0.5):
        sender.receive(credit, 0.5)
    assert len(list(sender.frames(0.6))) == 64


def test_lost_frames_cost_no_credit_once_a_probe_has_told_of_them() -> None:
    sending, receiving = SendingCredit(), ReceivingCredit()
    sending.spend(SESSION_CREDIT_BYTES)
    assert not sending.covers(1)
    receiving.note(sending.sent)
    sending.told(receiving.tell())
    assert sending.covers(SESSION_CREDIT_BYTES)
    sending.told(0)
    assert sending.covers(SESSION_CREDIT_BYTES), "older credit takes nothing back"


def test_offset_beyond_the_limit_gives_no_credit_without_end() -> None:
    receiving = ReceivingCredit()
    receiving.note(2**62)
    assert receiving.tell() == 2 * SESSION_CREDIT_BYTES


def test_time_out_follows_the_estimate_of_rfc_6298() -> None:
    trip = RoundTrip()
    trip.measured(1.0)
    assert (trip.seconds, trip.deviation, trip.timeout) == (1.0, 0.5, 3.0)
    trip.measured(2.0)
    assert (trip.seconds, trip.deviation) == (1.125, 0.625)
    assert trip.timeout == 1.125 + 4 * 0.625
    trip.timed_out()
    assert trip.timeout == 2 * (1.125 + 4 * 0.625)


@given(st.lists(st.floats(0, 1e6) | st.none(), max_size=50))
def test_time_out_stays_within_its_limits(measured) -> None:
    trip = RoundTrip()
    for seconds in measured:
        trip.timed_out() if seconds is None else trip.measured(seconds)
        assert SHORTEST_TIMEOUT_SECONDS <= trip.timeout <= LONGEST_TIMEOUT_SECONDS


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, QUANTUM_BYTES)), max_size=60))
def test_fair_queues_lose_nothing_and_keep_each_devices_order(frames) -> None:
    queues = FairQueues(10**9)
    for number, (device, size) in enumerate(frames):
        assert (
            queues.put(device, WaitingFrame(device.encode(), str(number), bytes(size), Direction.FROM_DEVICE)) is None
        )
    taken = queues.take(10**9)
    assert len(taken) == len(frames)
    assert (queues.size, len(queues)) == (0, 0)
    for device in "abc":
        assert [int(each.topic) for each in taken if each.session == device.encode()] == [
            number for number, (name, _) in enumerate(frames) if name == device
        ]


def test_device_with_little_is_not_behind_one_with_much() -> None:
    queues = FairQueues(10**9)
    for _ in range(100):
        queues.put("much", WaitingFrame(b"much", "", bytes(60_000), Direction.FROM_DEVICE))
    queues.put("little", WaitingFrame(b"little", "", bytes(100), Direction.FROM_DEVICE))
    assert b"little" in [frame.session for frame in queues.take(2 * QUANTUM_BYTES)]


def test_full_queues_drop_from_the_device_that_has_most() -> None:
    queues = FairQueues(1_000_000)
    for _ in range(16):
        queues.put("much", WaitingFrame(b"much", "", bytes(60_000), Direction.FROM_DEVICE))
    dropped = queues.put("little", WaitingFrame(b"little", "", bytes(60_000), Direction.FROM_DEVICE))
    assert dropped is not None
    assert dropped.session == b"much"
    assert queues.put("huge", WaitingFrame(b"huge", "", bytes(100), Direction.FROM_DEVICE)) is None
    queues.forget("much", b"much")
    assert queues.size == 60_100


def test_one_device_fills_no_more_than_its_own_share() -> None:
    queues = FairQueues(10**9)
    while queues.put("much", WaitingFrame(b"much", "", bytes(60_000), Direction.FROM_DEVICE)) is None:
        assert queues.size <= MAX_DEVICE_BACKLOG_BYTES


@pytest.mark.parametrize("table", [TRANSITIONS, {pair: step.state for pair, step in RELAYED.items()}])
def test_session_that_is_over_stays_over_and_every_state_has_a_way_there(table) -> None:
    over = {State.CLOSED, Relayed.OVER}
    assert not any(before in over for before, _ in table)
    for before in {before for before, _ in table}:
        assert any(at == before and after in over for (at, _), after in table.items())


@pytest.fixture
def world() -> World:
    """With a session open between the first device and a helper."""
    world = World()
    world.settle(1)
    world.open(world.devices[0])
    world.settle(1)
    return world


def test_request_whose_answer_is_not_kept_any_more_ends_the_session(world) -> None:
    device = world.devices[0]
    helper = next(each for each in world.helpers if each.name == device.end.helper)
    for _ in range(6):
        device.request(bytes(1))
    world.turn()
    frames = [packet for packet in world.wire if session_of(packet.data) == device.end.session]
    for packet in frames:
        world.deliver(packet)
    for frame in world.relay.next_frames(10**9):
        helper.take(helper.sessions.receive(frame.data, world.now), world.now)
    assert len(helper.waiting) == 6
    for request in helper.waiting:
        helper.sessions.answer(request.session, request.number, bytes(MAX_KEPT_BYTES // 4 - 10_000))
    helper.waiting.clear()
    world.wire.clear()
    for packet in frames[:1]:
        world.deliver(packet)
    (again,) = world.relay.next_frames(10**9)
    (closed,) = helper.sessions.receive(again.data, world.now)
    assert isinstance(closed, Closed)
    assert closed.reason == "answer_lost"


def test_device_asks_for_no_more_than_may_be_in_flight(world) -> None:
    device = world.devices[0]
    for _ in range(MAX_REQUESTS_IN_FLIGHT):
        device.request(b"")
    assert not device.end.has_room
    with pytest.raises(ValueError, match="takes no other"):
        device.end.request(b"")
    world.settle(2)
    assert device.end.has_room
    assert sum(isinstance(event, Answered) for event in device.events) == MAX_REQUESTS_IN_FLIGHT


def test_helper_takes_a_request_for_which_its_own_frame_makes_room(world) -> None:
    """The device has had its answers, and says so with the next request: nothing has to be repeated."""
    device = world.devices[0]
    for _ in range(2):
        for _ in range(MAX_REQUESTS_IN_FLIGHT):
            device.request(b"")
        world.settle(SHORTEST_TIMEOUT_SECONDS / 2)
    assert sum(isinstance(event, Answered) for event in device.events) == 2 * MAX_REQUESTS_IN_FLIGHT


def test_device_without_relay_or_helper_ends_by_itself(world) -> None:
    device = world.devices[0]
    device.request(b"never answered")
    while device.end.state is not State.CLOSED:
        world.now = device.end.deadline
        device.take(device.end.pass_time(world.now))
        device.end.outgoing(world.now)
    assert isinstance(device.events[-1], Ended)
    assert device.end.deadline is None


def test_helper_that_gives_signs_of_life_and_no_answer_is_given_up(world) -> None:
    device = world.devices[0]
    helper = next(each for each in world.helpers if each.name == device.end.helper)
    device.request(b"never answered")
    asked_at = world.now
    helper.answer = lambda _at: helper.waiting.clear()
    world.settle(3 * ANSWER_SECONDS)
    ended = device.events[-1]
    assert isinstance(ended, Ended)
    assert ended.reason == SessionReason.UNANSWERED
    assert ended.detail == f"no answer from helper {helper.name} for {ANSWER_SECONDS:g} s"
    assert world.now > asked_at + ANSWER_SECONDS
    assert len(helper.sessions) == 0, "the helper hears of it"


class NoCredit:
    """Of a helper that answers every probe, and takes nothing."""

    sent = 0

    def covers(self, _size: int) -> bool:
        return False

    def told(self, _limit: int) -> None:
        pass


def test_helper_that_gives_no_credit_is_given_up_as_one_that_does_not_answer(world) -> None:
    device = world.devices[0]
    device.end._channel._sending = NoCredit()
    device.request(b"never sent")
    world.settle(2 * ANSWER_SECONDS)
    assert isinstance(device.events[-1], Ended)
    assert device.events[-1].reason == SessionReason.UNANSWERED


def test_answer_is_waited_for_anew_once_a_lost_connection_is_there_again(world) -> None:
    device = world.devices[0]
    helper = next(each for each in world.helpers if each.name == device.end.helper)
    device.end._answer_seconds = 10.0
    device.request(b"not answered yet")
    helper.answer = lambda _at: helper.waiting.clear()
    device.end.outgoing(world.now)
    world.now += 9
    device.end.reconnected(world.now)
    world.settle(5)
    assert device.end.state is State.OPEN
    world.settle(10)
    assert device.end.state is State.CLOSED


def test_helper_that_answers_slowly_is_kept(world) -> None:
    device = world.devices[0]
    helper = next(each for each in world.helpers if each.name == device.end.helper)
    answer, helper.answer = helper.answer, lambda _at: None
    for _ in range(3):
        device.request(b"answered in time")
        waiting_until = world.now + 0.9 * ANSWER_SECONDS
        while world.now < waiting_until:
            world.now = min(waiting_until, world.now + 5)
            world.turn()
            while world.wire:
                world.deliver(world.wire.pop(0))
        answer(0)
    world.turn()
    assert device.end.state is State.OPEN


def test_answer_to_nothing_is_a_mistake_of_ours(world) -> None:
    device = world.devices[0]
    helper = next(each for each in world.helpers if each.name == device.end.helper)
    with pytest.raises(ValueError, match="waits for no answer"):
        helper.sessions.answer(device.end.session, 9, b"")
    helper.sessions.answer(bytes(16), 9, b"of a session that is over")
    assert not any(isinstance(event, Requested) for event in helper.waiting)


def test_helpers_sessions_are_over_when_the_coordinator_has_another_key(world) -> None:
    device = world.devices[0]
    helper = next(each for each in world.helpers if each.name == device.end.helper)
    (closed,) = helper.sessions.renew(helper.sessions._party, "the coordinator has another key")
    assert isinstance(closed, Closed)
    assert (closed.session, closed.reason) == (device.end.session, "replaced")
    assert len(helper.sessions) == 0
