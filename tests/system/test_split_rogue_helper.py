"""Helpers that answer anything but what they were asked for, or nothing, beside a shipped helper and its device."""

from collections.abc import Callable
from itertools import count

import msgspec
import numpy as np
import pytest

from fleet_protocol.codec.activations import pack_activations
from fleet_protocol.sessions.steps import StepAnswer, StepRequest
from tests.support.helper import CUT, TASK
from tests.support.session_members import HelperMember
from tests.support.split_fleet import SplitFleet
from tests.support.split_session import shipped
from tests.support.waiting import until

ROGUE, HONEST = "attic-pi", "cellar-pi"
"""Of two helpers without sessions, the relay takes the first in the order of their names."""
KINDS = 6

Behaviour = Callable[[StepRequest], bytes | None]


def shape_of_answer(request: StepRequest) -> tuple[int, ...]:
    """What the helper's blocks of the cut give: forward, or back."""
    plan = shipped().description.split
    ((first, end),) = plan.cut(CUT).helper
    return (request.rows, *plan.blocks[end - 1 if request.direction == "forward" else first - 1].output_shape)


def bad_answers(request: StepRequest) -> list[bytes]:
    """Of every kind."""
    ones = np.ones((request.rows, 3), np.float32)
    wrong_shape = StepAnswer(request.number, pack_activations(ones, request.wire))
    not_a_number = StepAnswer(request.number, pack_activations(ones * np.float32(np.nan), "float32"))
    of_an_old_step = StepAnswer(request.number - 1, request.packed)
    nothing = StepAnswer(request.number, b"")
    return [*map(msgspec.msgpack.encode, (wrong_shape, not_a_number, of_an_old_step, nothing)), b"", b"\xc1" * 99]


def wrong() -> Behaviour:
    """Each request has the next kind of bad answer."""
    number = count()
    return lambda request: bad_answers(request)[next(number) % KINDS]


def silent() -> Behaviour:
    """Signs of life, and no answer."""
    return lambda _request: None


def absurd() -> Behaviour:
    """Values of the right shape, finite, and far from any that training has."""

    def answer(request: StepRequest) -> bytes:
        values = np.full(shape_of_answer(request), np.float32(1e30))
        return msgspec.msgpack.encode(StepAnswer(request.number, pack_activations(values, request.wire)))

    return answer


class RogueHelper(HelperMember):
    """Keeps to the protocol of sessions, approved and allowed, and misbehaves in what it answers."""

    def __init__(self, *arguments, behaviour: Behaviour) -> None:
        super().__init__(*arguments, work=self._misbehave)
        self._behaviour = behaviour
        self.asked = 0

    def _misbehave(self, message: bytes) -> bytes | None:
        self.asked += 1
        return self._behaviour(msgspec.msgpack.decode(message, type=StepRequest))


@pytest.fixture
def serve(fleet: SplitFleet) -> Callable[[Behaviour], RogueHelper]:
    """Start a coordinator, and a helper that misbehaves, which the relay knows."""

    def make(behaviour: Behaviour) -> RogueHelper:
        bundle = fleet.begin(steps=4, buffer_size=1)
        rogue = fleet.member(RogueHelper, ROGUE, is_helper=True, behaviour=behaviour)

        def is_known() -> bool:
            rogue.offer(TASK, bytes.fromhex(bundle.hash))
            rogue.turn()
            return bool(fleet.relay_counts("edgeflock_helpers")[""])

        until(is_known, "the relay takes it for a helper")
        return rogue

    return make


def turning(rogue: RogueHelper, condition: Callable[[], object], what: str) -> None:
    until(lambda: (rogue.turn(), condition())[-1], what)


def test_device_leaves_out_a_helper_that_answers_wrong_says_so_and_trains_with_an_honest_one(fleet, serve) -> None:
    rogue = serve(wrong())
    kitchen = fleet.agent("kitchen")
    waits = f"{ROGUE} is left out for"
    turning(rogue, lambda: waits in kitchen.status()["tasks"][TASK]["reason"], "the device says whom it leaves out")
    asked = rogue.asked
    assert asked >= KINDS - 1, "the last of which ends the session"
    assert kitchen.status()["accepted_updates"] == 0
    fleet.helper(HONEST)
    kitchen.ask({"command": "train"})
    turning(rogue, lambda: fleet.accepted() >= 2, "the device's update and the honest helper's are accepted")
    assert rogue.asked == asked, "it is not asked again meanwhile"
    verdict = fleet.audited()
    assert (verdict.lost, verdict.duplicated) == (0, 0)


@pytest.mark.parametrize("behaviour", [silent, pytest.param(absurd, marks=pytest.mark.long)])
def test_round_begins_anew_with_another_helper_where_one_gives_nothing_or_absurd_numbers(
    fleet, serve, behaviour
) -> None:
    rogue = serve(behaviour())
    fleet.helper(HONEST)
    kitchen = fleet.agent("kitchen", answer_seconds=6)
    turning(rogue, lambda: fleet.accepted() >= 2, "the device's update and the honest helper's are accepted")
    assert rogue.asked > 0
    assert f"helper={ROGUE}" in next(line for line in kitchen.log().splitlines() if "event=helper_left_out" in line)
    assert "event=divergence_expected" not in kitchen.log()
    verdict = fleet.audited()
    assert (verdict.lost, verdict.duplicated) == (0, 0)
