"""What a device's worker may ask of a helper, whatever a bundle has made of it."""

from typing import Any, cast

import pytest

from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.connection.link import Link
from edge_agent.shell.splitting.helped_round import HelpedRound
from edge_agent.worker.contract import StepAsked
from edge_agent.worker.supervisor import NoHelper, OverloadError
from fleet_protocol.keys import SigningKey, write_verify_key
from fleet_protocol.limits import MAX_REQUESTS_IN_FLIGHT
from fleet_protocol.sessions.events import Wanted
from fleet_protocol.sessions.frames import MAX_CONTENT_BYTES
from tests.support.fleet import FLEET, SHARD


@pytest.fixture
def helped() -> HelpedRound:
    """A round whose session has not begun: what is asked waits."""
    coordinator = write_verify_key(SigningKey.generate().verify_key)
    identity = Identity(FLEET, SHARD, "kitchen-pi", SigningKey.generate(), coordinator)
    return HelpedRound(identity, cast("Link", cast("Any", None)), Wanted("digits", bytes(32), "deep", 1), ())


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
