"""The relay, as the shipped coordinator starts it, on a real Mosquitto; the ends of sessions are their cores."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from broker_coordinator.commands.relay_child import RelayChild
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.helper_registry import HelperRegistry
from broker_coordinator.storage.journal import Journal
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import SessionReason
from fleet_protocol.limits import SESSION_BYTES
from fleet_protocol.sessions.events import Asked, Granted, Moved, OfferRefused, Outgoing, Requested, Wanted
from fleet_protocol.sessions.frames import Frame, FrameType, write_frame
from fleet_protocol.sessions.secrecy import Direction
from session_relay.relay.core.limits import CONTROL_BURST, OPENING_BURST
from tests.support.broker import Broker
from tests.support.bundles import TASK, THREE_BLOCKS, write_bundle
from tests.support.coordinator import CoordinatorProcess
from tests.support.session_members import DeviceMember, HelperMember, turning
from tests.support.waiting import until

WITHOUT_CUTS = "whole"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "bundle", split=THREE_BLOCKS)


@pytest.fixture
def coordinator(tmp_path: Path, broker: Broker, bundle: Bundle) -> Iterator[CoordinatorProcess]:
    write_bundle(tmp_path / "whole", task=WITHOUT_CUTS)
    folders = [tmp_path / "bundle", tmp_path / "whole"]
    coordinator = CoordinatorProcess(tmp_path / "coordinator", broker, folders, enrolment="closed")
    coordinator.start()
    until(lambda: "relay_connected" in coordinator.log(), "the relay has reached the broker")
    yield coordinator
    coordinator.kill()


@pytest.fixture
def member(broker: Broker, coordinator: CoordinatorProcess) -> Iterator[Callable]:
    """Makes an approved device or helper on the broker."""
    made = []

    def make(shape: type, name: str, *, is_helper: bool = False):
        key = SigningKey.generate()
        with Journal.open(coordinator.database) as journal:
            DeviceRegistry(journal.engine).approve(name, key.verify_key)
            if is_helper:
                HelperRegistry(journal.engine).allow(name)
        made.append(shape(name, broker, coordinator.public_key, key))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def wanted(bundle: Bundle) -> Wanted:
    return Wanted(TASK, bytes.fromhex(bundle.hash), "middle", 0)


def offer_until_served(helper: HelperMember, device: DeviceMember, wanted: Wanted) -> None:
    """The relay reads within a second what an operator has allowed: until then offers and openings are refused."""

    def served() -> bool:
        if not hasattr(device, "end") or device.refusal:
            helper.offer(wanted.task, wanted.bundle)
            device.open(wanted)
        return any(isinstance(each, Granted) for each in device.events)

    def turned() -> bool:
        served()
        helper.turn()
        device.turn()
        return served()

    until(turned, "a session is granted")


def relay_process(coordinator: CoordinatorProcess) -> psutil.Process | None:
    children = psutil.Process(coordinator.pid).children()
    return next((each for each in children if "session_relay.relay" in each.cmdline()), None)


def test_requests_of_a_device_are_answered_by_its_helper_over_a_relay_that_is_killed(
    coordinator, member, wanted
) -> None:
    helper, device = member(HelperMember, "gateway", is_helper=True), member(DeviceMember, "kitchen-pi")
    offer_until_served(helper, device, wanted)
    large = b"x" * 300_000
    device.end.request(large)
    turning(helper, device, when=lambda: 1 in device.answers, what="the request is answered")
    assert device.answers[1] == large.upper()

    killed = relay_process(coordinator)
    killed.kill()
    device.end.request(b"over a new relay")
    turning(helper, device, when=lambda: 2 in device.answers, what="the session goes on over the next relay")
    assert relay_process(coordinator) != killed
    assert [each.number for each in helper.events if isinstance(each, Requested)] == [1, 2]
    assert sum(isinstance(each, Granted) for each in device.events) == 1


def test_the_relay_ends_with_its_coordinator(coordinator) -> None:
    relay = relay_process(coordinator)
    coordinator.kill()
    until(lambda: not relay.is_running() or relay.status() == psutil.STATUS_ZOMBIE, "the relay has ended")


def test_a_relay_that_gives_no_sign_of_life_is_killed_and_started_again(tmp_path, broker, bundle, children) -> None:
    of_its_own = "[relay]\nenabled = false\n"  # the coordinator has none: the test starts it
    coordinator = CoordinatorProcess(tmp_path / "coordinator", broker, [tmp_path / "bundle"], more=of_its_own)
    coordinator.start_serving()
    others = children.direct()
    relay = RelayChild(coordinator.configuration, coordinator.database, silence_seconds=5.0)

    def runs() -> psutil.Process | None:
        return next((each for each in children.direct() if each not in others), None)

    hanging = until(runs, "the relay runs")
    hanging.suspend()
    until(lambda: not hanging.is_running(), "it is ended")
    assert until(runs, "there is another one") != hanging
    relay.stop()
    assert runs() is None
    coordinator.kill()


def test_a_helper_that_is_denied_loses_its_sessions(coordinator, member, wanted) -> None:
    helper, device = member(HelperMember, "gateway", is_helper=True), member(DeviceMember, "kitchen-pi")
    offer_until_served(helper, device, wanted)
    assert [each["name"] for each in coordinator._ask("helpers", "deny", "gateway")] == []
    turning(helper, device, when=lambda: device.end.state == "closed", what="the device hears of it")
    assert isinstance(device.events[-1], Moved)
    assert device.events[-1].reason == SessionReason.NOT_APPROVED
    helper.offer(wanted.task, wanted.bundle)
    turning(helper, when=lambda: isinstance(helper.events[-1], OfferRefused), what="its offer is refused")
    assert "helpers allow gateway" in helper.events[-1].detail


def test_device_that_asks_for_a_hundred_sessions_and_floods_disturbs_no_other(coordinator, member, wanted) -> None:
    helper, device = member(HelperMember, "gateway", is_helper=True), member(DeviceMember, "kitchen-pi")
    flooding = member(DeviceMember, "shed-pi")
    offer_until_served(helper, device, wanted)
    offer_until_served(helper, flooding, wanted)
    for number in range(100):
        flooding.open(wanted)
        flooding.turn()
        session, chunk = os.urandom(SESSION_BYTES), bytes(60_000)
        frame = Frame(FrameType.CONTENT, session, Direction.FROM_DEVICE, 0, 0, number + 1, 0, 1, chunk)
        flooding.publish(Outgoing(write_frame(frame, bytes(32)), False))
    for number in range(1, 6):
        device.end.request(b"in between")
        turning(helper, device, when=lambda asked=number: asked in device.answers, what="the other device is answered")
    assert device.end.state == "open"
    assert len(helper.sessions) <= 2
    assert flooding.arrived.qsize() <= CONTROL_BURST + OPENING_BURST


def test_nobody_has_a_session_for_a_task_without_cuts_or_with_a_helper_that_is_not_allowed(
    coordinator, member, wanted, tmp_path
) -> None:
    whole = load_bundle(tmp_path / WITHOUT_CUTS)
    stranger = member(HelperMember, "attic-pi")
    helper, device = member(HelperMember, "gateway", is_helper=True), member(DeviceMember, "kitchen-pi")
    offer_until_served(helper, device, wanted)
    other = member(DeviceMember, "shed-pi")
    offer_until_served(helper, other, wanted)
    stranger.offer(wanted.task, wanted.bundle)
    helper.offer(WITHOUT_CUTS, bytes.fromhex(whole.hash))
    turning(stranger, when=lambda: stranger.events, what="the stranger is told")
    assert "helpers allow attic-pi" in stranger.events[0].detail
    refusals = {
        SessionReason.NO_CUTS: Wanted(WITHOUT_CUTS, bytes.fromhex(whole.hash), wanted.cut, 0),
        SessionReason.NO_HELPER: dataclasses.replace(wanted, without=("gateway",)),
    }
    for reason, asked in refusals.items():
        device.open(asked)
        turning(helper, stranger, device, when=lambda: device.refusal, what="the device is refused")
        assert (device.refusal.reason, bool(device.refusal.detail)) == (reason, True)
    assert not any(isinstance(event, Asked) for event in stranger.events)
    other.end.request(b"and the other goes on")
    turning(helper, other, when=lambda: other.answers, what="the other device is answered")
