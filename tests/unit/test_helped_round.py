"""What a device's worker may ask of a helper, whatever a bundle has made of it; and whom the device leaves out."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edge_agent.core.left_out_helpers import FIRST_SECONDS, LeftOutHelpers
from edge_agent.core.split_settings import SplitSettings
from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.connection.link import Link
from edge_agent.shell.splitting.helped_round import HelpedRound
from edge_agent.worker.contract import StepAsked, TrainingFailure, Verdict, Withheld
from edge_agent.worker.supervisor import NoHelper, OverloadError
from fleet_protocol.keys import SigningKey, write_verify_key
from fleet_protocol.limits import MAX_REQUESTS_IN_FLIGHT
from fleet_protocol.sessions.events import Answered, Ended, Moved, Wanted
from fleet_protocol.sessions.frames import MAX_CONTENT_BYTES
from tests.support.fleet import FLEET, SHARD

HELPER = "cellar-pi"


@pytest.fixture
def left_out() -> LeftOutHelpers:
    """What the device knows of helpers."""
    return LeftOutHelpers()


@pytest.fixture
def helped(left_out: LeftOutHelpers) -> HelpedRound:
    """A round whose session has not begun: what is asked waits."""
    coordinator = write_verify_key(SigningKey.generate().verify_key)
    identity = Identity(FLEET, SHARD, "kitchen-pi", SigningKey.generate(), coordinator)
    link = cast("Link", SimpleNamespace(connected=True, send_off=lambda *_, **__: True))
    return HelpedRound(identity, link, Wanted("digits", bytes(32), "deep", 1), SplitSettings(), left_out)


def test_worker_that_floods_is_stopped(helped) -> None:
    for _ in range(MAX_REQUESTS_IN_FLIGHT):
        helped.ask(StepAsked(b"a step"))
    with pytest.raises(OverloadError, match=f"worker asked for more than {MAX_REQUESTS_IN_FLIGHT} steps at once"):
        helped.ask(StepAsked(b"one more"))


def test_step_that_is_too_large_to_pass_names_its_size_and_what_to_do(helped) -> None:
    with pytest.raises(OverloadError, match=f"a step of {MAX_CONTENT_BYTES + 1} bytes, at most .* smaller batch_size"):
        helped.ask(StepAsked(bytes(MAX_CONTENT_BYTES + 1)))


def test_step_that_was_meant_for_a_helper_who_is_gone_counts_for_nothing(helped) -> None:
    for _ in range(2 * MAX_REQUESTS_IN_FLIGHT):
        helped.ask(StepAsked(b"late", helper=1))


def test_round_without_a_helper_has_nobody_to_ask() -> None:
    with pytest.raises(OverloadError, match="in a round without one"):
        NoHelper().ask(StepAsked(b"a step"))


def served(helped: HelpedRound, *, answers: int = 1, asked: int = 0) -> HelpedRound:
    """A helper takes part, and has answered so many steps; so many wait."""
    helped._end = cast("Any", SimpleNamespace(helper=HELPER, has_room=False, leave=lambda: None))
    for number in range(answers):
        helped.ask(StepAsked(b"a step"))
        helped._handle(Answered(number + 1, b"an answer"))
    for _ in range(asked):
        helped.ask(StepAsked(b"a step"))
    return helped


async def names(left_out: LeftOutHelpers) -> tuple[str, ...]:
    return left_out.at(asyncio.get_running_loop().time())


WRONG = TrainingFailure("the helper answers wrong", helper_lost=True)
DIVERGED = TrainingFailure("the loss is not finite any more", diverged=True)
TOO_LATE = TrainingFailure("worker passed its time limit", out_of_time=True)


@pytest.mark.parametrize(
    ("verdict", "waiting"), [(WRONG, 0), (DIVERGED, 0), (TOO_LATE, 1)], ids=["wrong", "diverged", "too late"]
)
async def test_helper_whose_answers_spoil_a_round_is_left_out_and_nothing_else_is_blamed(
    helped, left_out, verdict, waiting
) -> None:
    judged = served(helped, asked=waiting).judged(verdict)
    assert isinstance(judged, TrainingFailure)
    assert (judged.error, judged.helper_lost, judged.diverged) == (verdict.error, True, False)
    assert await names(left_out) == (HELPER,)
    assert verdict.error in left_out.words(asyncio.get_running_loop().time())


@pytest.mark.parametrize(
    "verdict",
    [
        TrainingFailure("worker passed its memory limit", out_of_memory=True),
        TrainingFailure("some samples are unfit", unfit=[1]),
        TOO_LATE,
        Withheld("spent", "these samples are spent", 0, 1.0),
    ],
    ids=["memory", "samples", "too slow itself", "spent"],
)
async def test_round_that_ends_for_reasons_of_the_device_blames_no_helper(helped, left_out, verdict: Verdict) -> None:
    assert served(helped).judged(verdict) == verdict
    assert await names(left_out) == ()


async def test_round_that_diverged_before_any_answer_blames_no_helper(helped, left_out) -> None:
    assert served(helped, answers=0).judged(DIVERGED) == DIVERGED
    assert await names(left_out) == ()


async def test_helper_with_which_a_round_succeeds_is_forgiven(helped, left_out) -> None:
    left_out.blame(HELPER, "it was slow", 0.0)
    served(helped).judged(Withheld("spent", "these samples are spent", 0, 1.0))
    now = asyncio.get_running_loop().time()
    assert left_out.blame(HELPER, "again", now) == FIRST_SECONDS


@pytest.mark.parametrize(
    ("reason", "is_left_out"),
    [("helper_failed", True), ("unanswered", True), ("malformed", True), ("helper_gone", False), ("replaced", False)],
)
async def test_helper_whose_session_ends_by_its_own_doing_is_left_out(helped, left_out, reason, is_left_out) -> None:
    served(helped)._handle(Ended(reason, "in words"))
    assert await names(left_out) == ((HELPER,) if is_left_out else ())
    await helped.close()


@pytest.mark.parametrize(
    ("answers", "reason", "is_left_out"), [(0, "left", True), (1, "left", False), (0, "helper_gone", False)]
)
async def test_helper_that_takes_a_session_and_leaves_it_without_an_answer_is_left_out(
    helped, left_out, answers, reason, is_left_out
) -> None:
    served(helped, answers=answers)._handle(Moved(reason, "in words"))
    assert await names(left_out) == ((HELPER,) if is_left_out else ())
    await helped.close()


async def test_helper_that_was_silent_while_the_device_had_no_connection_is_not_left_out(helped, left_out) -> None:
    helped._link.connected = False
    served(helped)._handle(Ended("unanswered", "nothing from helper cellar-pi for 90 s"))
    assert await names(left_out) == ()
    await helped.close()


async def test_step_that_fails_while_the_next_helper_is_looked_for_blames_nobody(helped, left_out) -> None:
    served(helped)._end.helper = ""
    helped.judged(WRONG)
    assert await names(left_out) == ()
