"""A helper that answers anything but what it was asked for, between shipped devices and a shipped helper."""

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.helper_registry import HelperRegistry
from broker_coordinator.storage.journal import Journal
from fleet_protocol.codec.activations import pack_activations
from fleet_protocol.keys import SigningKey
from fleet_protocol.sessions.steps import StepAnswer, StepRequest
from tests.support.broker import Broker
from tests.support.helper import TASK
from tests.support.session_members import HelperMember
from tests.support.split_fleet import SplitFleet
from tests.support.waiting import until

KINDS = 6


def bad_answers(request: StepRequest) -> list[bytes]:
    """Of every kind."""
    ones = np.ones((request.rows, 3), np.float32)
    wrong_shape = StepAnswer(request.number, pack_activations(ones, request.wire))
    not_a_number = StepAnswer(request.number, pack_activations(ones * np.float32(np.nan), "float32"))
    of_an_old_step = StepAnswer(request.number - 1, request.packed)
    nothing = StepAnswer(request.number, b"")
    return [*map(msgspec.msgpack.encode, (wrong_shape, not_a_number, of_an_old_step, nothing)), b"", b"\xc1" * 99]


class RogueHelper(HelperMember):
    """Keeps to the protocol of sessions, and gives each request the next kind of bad answer."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments, work=self._answer_badly)
        self.answered = 0

    def _answer_badly(self, message: bytes) -> bytes:
        answers = bad_answers(msgspec.msgpack.decode(message, type=StepRequest))
        self.answered += 1
        return answers[(self.answered - 1) % KINDS]


@pytest.fixture
def rogue(fleet: SplitFleet, broker: Broker) -> Iterator[RogueHelper]:
    """Approved, allowed, and the only one that offers itself."""
    bundle = fleet.begin(steps=4, buffer_size=2)
    key = SigningKey.generate()
    with Journal.open(fleet.coordinator.database) as journal:
        DeviceRegistry(journal.engine).approve("rogue-pi", key.verify_key)
        HelperRegistry(journal.engine).allow("rogue-pi")
    rogue = RogueHelper("rogue-pi", broker, fleet.coordinator.public_key, key)

    def is_known() -> bool:
        rogue.offer(TASK, bytes.fromhex(bundle.hash))
        rogue.turn()
        return bool(fleet.relay_counts("edgeflock_helpers")[""])

    until(is_known, "the relay takes it for a helper")
    yield rogue
    rogue.close()


def test_device_gives_up_a_helper_that_answers_wrong_and_trains_with_an_honest_one(fleet, rogue) -> None:
    kitchen = fleet.agent("kitchen")
    until(lambda: (rogue.turn(), "event=helper_lost" in kitchen.log())[-1], "the device says that it has lost it")
    assert rogue.answered >= KINDS - 1, "the last of which ends the session"
    assert kitchen.status()["accepted_updates"] == 0
    fleet.helper("cellar-pi")
    fleet.coordinator.helpers("deny", "rogue-pi")
    until(
        lambda: (rogue.turn(), fleet.versions() == 1)[-1], "the device's update and the honest helper's made a version"
    )
    verdict = fleet.audited()
    assert (verdict.lost, verdict.duplicated) == (0, 0)
