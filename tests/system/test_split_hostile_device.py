"""A device that floods, opens a hundred sessions and lies, while another one trains: every program as it ships."""

import os

import msgspec
import numpy as np
import pytest

from fleet_protocol.codec.activations import pack_activations
from fleet_protocol.kinds import SessionReason
from fleet_protocol.limits import MAX_REQUESTS_IN_FLIGHT, SESSION_BYTES
from fleet_protocol.sessions.events import Granted, Moved, Outgoing, Wanted
from fleet_protocol.sessions.frames import Frame, FrameType, write_frame
from fleet_protocol.sessions.secrecy import Direction
from fleet_protocol.sessions.steps import StepAnswer, StepRequest
from session_relay.relay.core.limits import CONTROL_BURST, OPENING_BURST
from tests.support.helper import CUT, TASK
from tests.support.session_members import DeviceMember, turning
from tests.support.split_fleet import SplitFleet
from tests.support.split_session import shipped
from tests.support.waiting import until

STEPS, ROWS = 600, 8
PLAN = shipped().description.split
SHAPE = PLAN.blocks[0].output_shape
"""Of what goes to the helper."""
ABSURD = float(np.finfo(np.float32).max)


class HostileDevice(DeviceMember):
    """Approved, with the key that its name has."""

    def ask_for(self, wanted: Wanted) -> str:
        """Open a session; returns the reason of the refusal, empty where it is granted."""
        self.open(wanted)
        turning(self, when=lambda: self.events, what="the relay has answered")
        return "" if isinstance(self.events[0], Granted) else str(self.refusal.reason)

    def say(self, *requests: bytes) -> list[StepAnswer]:
        """Ask for all of them at once; returns the answers."""
        numbers = [self.end.request(each) for each in requests]
        turning(self, when=lambda: self.answers.keys() >= set(numbers), what="the helper has answered")
        return [msgspec.msgpack.decode(self.answers[each], type=StepAnswer) for each in numbers]


def request(step: int, value: float = 0.5, **changes: object) -> bytes:
    """A forward pass as the task has it, or as `changes` say."""
    packed = pack_activations(np.full((ROWS, *SHAPE), value, np.float32), PLAN.activations)
    fine = StepRequest(2 * step + 1, "forward", step, 1, 2, ROWS, step, False, PLAN.activations, packed)
    return msgspec.msgpack.encode(msgspec.structs.replace(fine, **changes))


LIES = {
    "the device's own blocks": request(0, first=0, end=2),
    "a last block": request(0, first=1, end=3),
    "no blocks": request(0, first=2, end=2),
    "more rows": request(0, rows=4096),
    "another format": request(0, wire="float32"),
    "no values": request(0, packed=b""),
    "garbage": request(0, packed=b"\xff" * 99),
    "a gradient of nothing": request(9, direction="backward", update=True),
}


@pytest.fixture
def hostile(fleet: SplitFleet) -> HostileDevice:
    """In a fleet with a helper and a device that is in the middle of its round."""
    bundle = fleet.begin(steps=STEPS, buffer_size=1)
    hostile = fleet.member(HostileDevice, "shed-pi")
    helper = fleet.helper("cellar-pi")
    fleet.agent("kitchen")
    until(lambda: helper.status()["steps"] > 8, "the device is in the middle of its round")
    assert hostile.ask_for(Wanted(TASK, bytes.fromhex(bundle.hash), CUT, 0)) == ""
    return hostile


def ask_for_a_hundred_sessions(hostile: HostileDevice) -> None:
    """And send as many frames for sessions that there are not."""
    wanted = hostile.end.wanted
    for number in range(100):
        hostile.open(wanted)
        hostile.turn()
        frame = Frame(FrameType.CONTENT, os.urandom(SESSION_BYTES), Direction.FROM_DEVICE, 0, 0, number + 1, 0, 1)
        for data in (write_frame(frame, bytes(32)), os.urandom(60_000), b""):
            hostile.publish(Outgoing(data, False))


def test_device_that_lies_floods_and_opens_a_hundred_sessions_costs_the_others_nothing(fleet, hostile) -> None:
    (helper,), (kitchen,) = fleet.helpers, fleet.agents
    for what, answer in zip(LIES, hostile.say(*LIES.values()), strict=True):
        assert answer.problem and not answer.packed, what
    flood = [request(step, ABSURD) for step in range(MAX_REQUESTS_IN_FLIGHT)]
    assert len(hostile.say(*flood)) == MAX_REQUESTS_IN_FLIGHT
    hostile.end.request(b"\xc1no request")
    turning(hostile, when=lambda: isinstance(hostile.events[-1], Moved), what="what is no request ends the session")
    assert hostile.events[-1].reason == SessionReason.MALFORMED
    ask_for_a_hundred_sessions(hostile)
    until(lambda: kitchen.status()["accepted_updates"] == 1, "the other device's round is done")
    assert hostile.arrived.qsize() <= CONTROL_BURST + OPENING_BURST, "what is asked sooner is not even read"
    until(lambda: fleet.accepted() >= 2, "its update and the helper's are accepted")
    assert "event=helper_lost" not in kitchen.log()
    assert "event=middle_failed" not in helper.log()
    assert helper.log().count("event=steps_refused") <= 2, "once a minute, however many are"
    verdict = fleet.audited()
    assert (verdict.lost, verdict.duplicated, verdict.rejected) == (0, 0, 0)
