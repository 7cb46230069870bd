"""Whom the relay refuses, what it bounds, and that the others go on; with the shipped ends, over a wire in memory."""

import dataclasses
import re
from pathlib import Path

import pytest

from edge_agent.shell.splitting.helped_round import PATIENCE_SECONDS
from fleet_protocol.envelope import read_envelope
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import INTRODUCTION, OfferedTask, SessionReason
from fleet_protocol.limits import MAX_CONTROL_BYTES, MAX_RETRY_SECONDS, SESSION_CREDIT_BYTES
from fleet_protocol.sessions.device_end import DeviceEnd
from fleet_protocol.sessions.events import Answered, Ended, Granted, Moved, OfferRefused, Refused, Wanted
from fleet_protocol.sessions.frames import Frame, FrameType, is_frame, session_of, write_frame
from fleet_protocol.sessions.helper_sessions import OFFER_SECONDS
from fleet_protocol.sessions.lifecycle import State
from fleet_protocol.sessions.secrecy import Direction
from session_relay.relay.core.directory import Directory, ServedTask
from session_relay.relay.core.limits import (
    CONTROL_BURST,
    FIRST_OFFER_RETRY_SECONDS,
    HELPER_RETRY_SECONDS,
    MAX_DEVICE_BACKLOG_BYTES,
    OPENING_BURST,
    RETRY_SECONDS,
)
from session_relay.relay.metrics import RelayMetrics
from tests.support.sessions_world import BUNDLE, SERVED, TASK, WANTED, Device, Packet, World


@pytest.fixture
def world() -> World:
    """Its helpers have offered themselves."""
    world = World()
    world.settle(1)
    return world


def opened(world: World, device: Device, wanted: Wanted = WANTED) -> Device:
    world.open(device, wanted)
    world.settle(1)
    return device


def still_works(world: World, device: Device) -> bool:
    device.request(b"and the other goes on")
    world.settle(2)
    return world.is_settled(device) and device.end.state is State.OPEN


REFUSED = {
    "no such task": (dataclasses.replace(WANTED, task="nothing"), SessionReason.UNKNOWN_TASK),
    "no such cut": (dataclasses.replace(WANTED, cut="elsewhere"), SessionReason.UNKNOWN_CUT),
    "another bundle": (dataclasses.replace(WANTED, bundle=bytes(32)), SessionReason.WRONG_BUNDLE),
    "an earlier generation": (dataclasses.replace(WANTED, generation=4), SessionReason.OLD_GENERATION),
    "a version too old": (dataclasses.replace(WANTED, base_version=1), SessionReason.UNKNOWN_VERSION),
    "a paused task": (dataclasses.replace(WANTED, task="paused"), SessionReason.TASK_PAUSED),
    "a task without cuts": (dataclasses.replace(WANTED, task="whole"), SessionReason.NO_CUTS),
}


@pytest.mark.parametrize("case", REFUSED)
def test_opening_that_does_not_fit_the_task_is_refused_with_the_reason(world, case) -> None:
    wanted, reason = REFUSED[case]
    tasks = {TASK: dataclasses.replace(SERVED, oldest_version=2), "whole": ServedTask(BUNDLE, 0, 0, frozenset())}
    tasks["paused"] = dataclasses.replace(SERVED, is_paused=True)
    world.relay.learn(dataclasses.replace(world.directory(), tasks=tasks), world.now)
    other = opened(world, world.devices[1])
    device = opened(world, world.devices[0], wanted)
    (refused,) = device.events
    assert isinstance(refused, Refused)
    assert refused.reason == reason
    assert refused.detail
    assert refused.retry_seconds > 0
    assert still_works(world, other)


def test_helper_that_is_not_approved_gets_no_session_and_is_told_how(world) -> None:
    nobody = dataclasses.replace(world.directory(), helpers=frozenset())
    world.relay.learn(nobody, world.now)
    told = [event for event in _offer_again(world) if isinstance(event, OfferRefused)]
    assert told[0].reason == SessionReason.NOT_APPROVED
    assert "helpers allow gateway" in told[0].detail
    assert [event.reason for event in opened(world, world.devices[0]).events] == [SessionReason.NO_HELPER]


def _offer_again(world: World) -> list:
    helper = world.helpers[0]
    helper.sessions.offer([OfferedTask(TASK, BUNDLE)], 4, world.now)
    for outgoing in helper.sessions.outgoing(world.now):
        world.deliver(Packet(helper.party.topic, outgoing.data))
    control = world.relay.next_control()
    return helper.sessions.receive(control.data, world.now)


def test_device_asks_again_soon_where_no_helper_has_offered_itself_yet_and_meets_it() -> None:
    world = World()  # nobody has said anything
    refusals = []
    for _ in range(2):
        world.open(world.devices[0])
        (opening,) = world.devices[0].end.outgoing(world.now)
        world.deliver(Packet(world.devices[0].party.topic, opening.data))
        (refused,) = world.devices[0].end.receive(world.relay.next_control().data, world.now)
        refusals.append((refused.reason, refused.retry_seconds))
        world.settle(1)
        for helper in world.helpers:
            world.relay.helpers.remove(helper.name)
    assert refusals == [
        (SessionReason.NO_HELPER, FIRST_OFFER_RETRY_SECONDS),
        (SessionReason.NO_HELPER, HELPER_RETRY_SECONDS),
    ]
    assert HELPER_RETRY_SECONDS <= PATIENCE_SECONDS / 2, "a device asks more than once before it puts its round off"


def test_helper_that_refuses_can_not_send_a_device_away_for_a_day(world) -> None:
    device = world.devices[0]
    world.open(device)
    (opening,) = device.end.outgoing(world.now)
    world.deliver(Packet(device.party.topic, opening.data))
    for _ in world.helpers:
        asked = world.relay.next_control()
        helper = next(each for each in world.helpers if each.party.relayed == asked.topic)
        helper.sessions.receive(asked.data, world.now)
        helper.sessions.refuse(device.end.session, SessionReason.HELPER_BUSY, "tomorrow", MAX_RETRY_SECONDS)
        for outgoing in helper.sessions.outgoing(world.now):
            world.deliver(Packet(helper.party.topic, outgoing.data))
    (refused,) = device.end.receive(world.relay.next_control().data, world.now)
    assert (refused.detail, refused.retry_seconds) == ("tomorrow", RETRY_SECONDS)


def test_refusal_that_was_lost_is_given_again(world) -> None:
    device = world.devices[0]
    wanted = dataclasses.replace(WANTED, cut="elsewhere")
    session = device.open(world.now, wanted)
    (opening,) = device.end.outgoing(world.now)
    for _ in range(2):
        world.deliver(Packet(device.party.topic, opening.data))
        lost = world.relay.next_control()
    assert [event.reason for event in device.end.receive(lost.data, world.now)] == [SessionReason.UNKNOWN_CUT]
    opened(world, device)
    world.deliver(Packet(device.party.topic, opening.data))
    assert world.relay.book.get(session) is None
    assert still_works(world, device)


def test_reasons_that_a_helper_makes_up_are_counted_as_one(world) -> None:
    counters = world.relay.counters
    for number in range(50):
        counters.count_refusal(f"because-{number}")
    assert counters.refused == {"other": 50}


def test_metrics_show_sessions_helpers_and_what_was_passed_on(world) -> None:
    device = opened(world, world.devices[0])
    device.request(b"counted")
    world.settle(1)
    read = {sample.name: sample.value for metric in RelayMetrics(world.relay).collect() for sample in metric.samples}
    assert (read["edgeflock_sessions"], read["edgeflock_helpers"]) == (1, 2)
    assert read["edgeflock_relayed_frames_total"] >= 2
    assert read["edgeflock_sessions_opened_total"] == 1
    documented = set(re.findall(r"`(edgeflock_\w+)", (Path(__file__).parents[2] / "docs" / "operating.md").read_text()))
    assert {metric.name for metric in RelayMetrics(world.relay).collect()} <= {
        name.removesuffix("_total") for name in documented
    }


def test_a_hundred_sessions_of_one_device_are_refused_and_another_device_has_its_own(world) -> None:
    greedy, other = world.devices
    refusals = []
    for number in range(100):
        tasks = {f"task-{each}": SERVED for each in range(100)} | {TASK: SERVED}
        world.relay.learn(dataclasses.replace(world.directory(), tasks=tasks), world.now)
        end = DeviceEnd(greedy.party, dataclasses.replace(WANTED, task=f"task-{number}"), greedy.randomness, world.now)
        for outgoing in end.outgoing(world.now):
            world.deliver(Packet(greedy.party.topic, outgoing.data))
        while world.relay.control_waits:
            refusals += [event.reason for event in end.receive(world.relay.next_control().data, world.now)]
    refused = world.relay.counters.refused
    assert refused[SessionReason.NO_HELPER] + refused[SessionReason.RATE_LIMITED] == 100
    assert len(refusals) == CONTROL_BURST, "what comes sooner is not even read"
    assert len(world.relay.book) == 0
    assert refusals.count(SessionReason.NO_HELPER) == OPENING_BURST
    assert still_works(world, opened(world, other))


def test_device_has_as_many_sessions_as_it_may_and_all_together_too(world) -> None:
    tasks = [f"task-{number}" for number in range(6)]
    directory = dataclasses.replace(world.directory(), tasks=dict.fromkeys(tasks, SERVED))
    world.relay.learn(directory, world.now)
    for helper in world.helpers:
        helper.sessions.offer([OfferedTask(task, BUNDLE) for task in tasks], 9, world.now)
    world.settle(1)
    device = world.devices[0]
    states = [opened(world, device, dataclasses.replace(WANTED, task=task)).end.state for task in tasks]
    assert states == [State.OPEN] * 4 + [State.CLOSED] * 2
    assert device.events[0].reason == SessionReason.TOO_MANY_SESSIONS


def test_another_session_for_the_same_task_takes_the_place_of_the_one_before(world) -> None:
    device = world.devices[0]
    before = opened(world, device).end
    opened(world, device)
    assert device.end.state is State.OPEN
    assert world.relay.book.get(before.session) is None
    assert [len(helper.sessions) for helper in world.helpers] in ([0, 1], [1, 0])


def test_sessions_go_to_the_least_loaded_helper_and_a_full_one_gets_none(world) -> None:
    helpers = [opened(world, device).end.helper for device in world.devices]
    assert sorted(helpers) == ["gateway", "tower"]
    for helper in world.helpers:
        helper.sessions.offer([OfferedTask(TASK, BUNDLE)], 1, world.now)
    third = Device("third-pi", 60)
    world.devices.append(third)
    world.relay.learn(world.directory(), world.now)
    world.settle(1)
    assert opened(world, third).events[0].reason == SessionReason.HELPER_BUSY


def test_device_that_does_without_a_helper_gets_another_one_and_else_hears_so(world) -> None:
    device = world.devices[0]
    for _ in range(3):
        assert opened(world, device, dataclasses.replace(WANTED, without=("gateway",))).end.helper == "tower"
    without_both = opened(world, device, dataclasses.replace(WANTED, without=("gateway", "tower")))
    (refused,) = without_both.events
    assert refused.reason == SessionReason.NO_HELPER
    assert "no other helper offers to serve" in refused.detail
    assert still_works(world, opened(world, world.devices[1]))


def test_session_that_a_helper_declines_goes_to_none_that_its_device_does_without(world) -> None:
    device = world.devices[0]
    world.open(device, dataclasses.replace(WANTED, without=("tower",)))
    (opening,) = device.end.outgoing(world.now)
    world.deliver(Packet(device.party.topic, opening.data))
    (gateway,) = [helper for helper in world.helpers if helper.name == "gateway"]
    gateway.sessions.receive(world.relay.next_control().data, world.now)
    gateway.sessions.refuse(device.end.session, SessionReason.HELPER_BUSY, "no room", 1)
    for outgoing in gateway.sessions.outgoing(world.now):
        world.deliver(Packet(gateway.party.topic, outgoing.data))
    (refused,) = device.end.receive(world.relay.next_control().data, world.now)
    assert (refused.reason, refused.detail) == (SessionReason.HELPER_BUSY, "no room")


def test_sessions_that_are_resumed_before_their_helpers_first_offer_count_as_its_load(world) -> None:
    for device in world.devices:
        opened(world, device, dataclasses.replace(WANTED, without=("tower",)))
    world.start_relay()
    for device in world.devices:
        device.end.reconnected(world.now)
    world.settle(1)
    assert [device.end.state for device in world.devices] == [State.OPEN, State.OPEN]
    assert world.relay.helpers.get("gateway") is None
    world.settle(OFFER_SECONDS)
    assert world.relay.helpers.get("gateway").load == 2
    for device in world.devices:
        device.end.leave()
    world.settle(1)
    assert world.relay.helpers.get("gateway").load == 0


def test_flood_is_bounded_and_waits_behind_itself(world) -> None:
    flooding, other = (opened(world, device) for device in world.devices)
    session, body = flooding.end.session, bytes(60_000)
    key = flooding.party.hop_key(session)
    for number in range(300):
        frame = Frame(FrameType.CONTENT, session, Direction.FROM_DEVICE, 0, 0, number + 1, 0, 1, body)
        world.relay.receive(flooding.party.topic, write_frame(frame, key), world.now)
    assert world.relay.queues.size <= MAX_DEVICE_BACKLOG_BYTES
    assert world.relay.counters.dropped["backlog"] > 100
    other.request(b"one frame")
    for outgoing in other.end.outgoing(world.now):
        world.relay.receive(other.party.topic, outgoing.data, world.now)
    assert other.end.session in [frame.session for frame in world.relay.next_frames(200_000)]


def test_frames_beyond_credit_are_dropped(world) -> None:
    device = opened(world, world.devices[0])
    session = device.end.session
    beyond = Frame(FrameType.CONTENT, session, Direction.FROM_DEVICE, SESSION_CREDIT_BYTES, 0, 1, 0, 1, bytes(16))
    world.relay.receive(device.party.topic, write_frame(beyond, device.party.hop_key(session)), world.now)
    assert (world.relay.queues.size, world.relay.counters.dropped["no_credit"]) == (0, 1)
    probe = Frame(FrameType.PROBE, session, Direction.FROM_DEVICE, 2 * SESSION_CREDIT_BYTES, 0)
    world.relay.receive(device.party.topic, write_frame(probe, device.party.hop_key(session)), world.now)
    assert len(world.relay.queues) == 1, "who waits for credit can always ask for it"


@pytest.mark.parametrize("sizes", [(3_000_000, 3_000_000), (3_000_000, 1), (1, 3_000_000)])
def test_more_than_the_first_credit_passes_whichever_way_most_of_it_goes(world, sizes, monkeypatch) -> None:
    asked, answered = sizes
    monkeypatch.setattr("tests.support.sessions_world.answer_to", lambda request: request[:1] * answered)
    device = opened(world, world.devices[0])
    for number in range(5):
        device.request(bytes([number]) * asked)
    world.settle(2)
    assert world.is_settled(device)
    assert world.relay.counters.dropped.total() == 0
    assert sum(isinstance(event, Answered) for event in device.events) == 5


def test_frame_of_one_session_is_no_frame_of_another(world) -> None:
    first, second = (opened(world, device) for device in world.devices)
    first.request(b"secret")
    world.turn()
    (captured,) = [each for each in world.wire if is_frame(each.data)]
    with pytest.raises(ProtocolError, match="not its own"):
        world.relay.receive(second.party.topic, captured.data, world.now)
    moved = captured.data[:2] + second.end.session + captured.data[18:]
    for topic in (first.party.topic, second.party.topic):
        with pytest.raises(ProtocolError, match="not its own"):
            world.relay.receive(topic, moved, world.now)
    assert session_of(captured.data) == first.end.session
    assert b"secret" not in captured.data


def test_helper_that_was_forged_by_the_relay_is_not_believed_where_helpers_are_pinned(world) -> None:
    device = world.devices[0]
    device.end = DeviceEnd(device.party, WANTED, device.randomness, world.now, trusted=[bytes(32)])
    world.ends[device.end.session] = {device.name, "gateway", "tower"}
    world.settle(1)
    assert [event.reason for event in device.events] == [SessionReason.UNTRUSTED_HELPER]
    world.settle(1)
    assert len(world.relay.book) == 0


def test_sessions_of_a_helper_that_gives_no_sign_of_life_move(world) -> None:
    device = opened(world, world.devices[0])
    gone = next(helper for helper in world.helpers if helper.name == device.end.helper)
    world.helpers.remove(gone)
    world.settle(130)
    assert isinstance(device.events[-1], Moved | Ended)
    assert still_works(world, opened(world, device))
    assert isinstance(device.events[0], Granted)


def test_helper_that_leaves_a_session_can_not_say_that_its_connection_was_lost(world) -> None:
    device = opened(world, world.devices[0])
    helper = next(each for each in world.helpers if each.name == device.end.helper)
    helper.sessions.end(device.end.session, SessionReason.HELPER_GONE, "in words")
    world.settle(1)
    assert device.events[-1] == Moved(SessionReason.LEFT, "in words")


def test_revoked_device_loses_its_session_and_its_helper_hears_of_it(world) -> None:
    device = opened(world, world.devices[0])
    without = {name: key for name, key in world.directory().devices.items() if name != device.name}
    world.relay.learn(Directory(without, frozenset(["gateway", "tower"]), {TASK: SERVED}), world.now)
    world.settle(1)
    assert sum(len(helper.sessions) for helper in world.helpers) == 0
    world.open(device)
    with pytest.raises(ProtocolError) as caught:
        world.relay.receive(device.party.topic, device.end.outgoing(world.now)[0].data, world.now)
    assert caught.value.reason is Reason.UNKNOWN_KEY


def test_device_that_comes_back_with_another_key_has_a_session_though_it_numbers_from_below(world) -> None:
    former = world.devices[0]
    former.restart()
    opened(world, former)
    world.devices[0] = Device(former.name, seed=99)
    world.relay.learn(world.directory(), world.now)
    device = opened(world, world.devices[0])
    assert any(isinstance(event, Granted) for event in device.events), device.events
    assert still_works(world, device)


def opening_of(world: World, device: Device) -> Packet:
    """As it was published last."""
    return next(each for each in reversed(world.seen) if each.topic == device.party.topic and not is_frame(each.data))


def test_old_opening_takes_no_session_away_from_a_device_that_a_new_relay_has_heard(world) -> None:
    device = opened(world, world.devices[0])
    old = opening_of(world, device)
    opened(world, device)
    world.start_relay()
    world.settle(25)
    assert still_works(world, device), "resumed with the relay"
    world.deliver(old)
    assert still_works(world, device)
    assert len(world.relay.book) == 1


def test_device_that_had_much_on_its_way_when_the_relay_was_restarted_resumes_at_once(world) -> None:
    device = opened(world, world.devices[0])
    for _ in range(4):
        device.request(bytes(1_000_000))
    frames = [each.data for each in device.end.outgoing(world.now)]
    world.start_relay()
    for helper in world.helpers:
        helper.sessions.reconnected(world.now)
    for frame in frames:
        world.deliver(Packet(device.party.topic, frame))
    assert len(frames) > CONTROL_BURST
    world.settle(1)
    assert (device.end.state, world.relay.counters.resumed) == (State.OPEN, 1)


def test_old_introductions_fill_no_helper_that_has_started_again(world) -> None:
    device = world.devices[0]
    for _ in range(4):
        opened(world, device)
    relayed = [helper.party.relayed for helper in world.helpers]
    signed = [each for each in world.seen if each.topic in relayed and not is_frame(each.data)]
    asked = [each for each in signed if read_envelope(each.data, MAX_CONTROL_BYTES).header.kind is INTRODUCTION]
    for helper in world.helpers:
        world.restart_helper(helper)
    for packet in asked:
        world.deliver(packet)
    assert sum(len(helper.sessions) for helper in world.helpers) >= 4
    world.settle(1)
    assert sum(len(helper.sessions) for helper in world.helpers) == len(world.relay.book)
    assert still_works(world, opened(world, device))
