"""A pair of networks in a fleet where one side gives what is no finite number: every program as it ships.

docs/split-gan.md, "What goes wrong": the fleet goes on, versions stay finite, and logs have it in words.
"""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks.live_gans.pair_bundle import write_short_pair
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.codec import read_weights
from fleet_protocol.codec.activations import pack_activations
from fleet_protocol.sample_schema import inputs_as_one
from fleet_protocol.sessions.events import Granted, Wanted
from fleet_protocol.sessions.steps import StepAnswer, StepRequest
from tests.support.broker import Broker
from tests.support.helper import SplitAgent
from tests.support.session_members import DeviceMember, HelperMember, turning
from tests.support.split_fleet import SplitFleet
from tests.support.waiting import until

TASK, CUT, ROWS = "mnist_gan", "g3-d3", 16
LARGEST = 3e38
"""Finite, and what a network makes of it is not."""
ROGUE, HONEST = "attic-pi", "cellar-pi"
"""Of two helpers without sessions, the relay takes the first in the order of their names."""
WIRE = "float32"
"""So that what is no number passes as it is, in a message of the right form."""


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """The shipped pair with short rounds, whose pictures may hold any number; each update makes a version."""
    folder = tmp_path / "bundle"
    description = write_short_pair(folder, steps=2, buffer_size=1).description
    inputs = dict(description.inputs)
    inputs["picture"] = msgspec.structs.replace(inputs["picture"], minimum=-LARGEST / 10, maximum=LARGEST)
    split = msgspec.structs.replace(description.split, activations=WIRE, gradients=WIRE)
    changed = msgspec.structs.replace(description, inputs=inputs, input=inputs_as_one(inputs), split=split)
    (folder / DESCRIPTION_FILE).write_bytes(msgspec.json.encode(changed))
    return load_bundle(folder)


@pytest.fixture
def fleet(tmp_path: Path, broker: Broker, bundle: Bundle) -> Iterator[SplitFleet]:
    """Of that task, without a helper yet."""
    fleet = SplitFleet(tmp_path, broker)
    fleet.serve(tmp_path / "bundle")
    yield fleet
    fleet.end()


def picture(value: float | None = None) -> dict[str, object]:
    """A sample as an agent takes it: noise, but for the `value` of all of it."""
    values = np.random.default_rng(0).random(28 * 28) if value is None else np.full(28 * 28, value)
    return {"task": TASK, "inputs": {"picture": values.tolist(), "digit": [3]}}


def device(fleet: SplitFleet, name: str, value: float | None = None) -> SplitAgent:
    """One that trains from every version, on twenty such pictures."""
    agent = fleet.agent(name, samples=0, cut=CUT, new_version=True, minimum_samples=20)
    for _ in range(20):
        assert agent.ask(picture(value)) == {"ok": True}
    return agent


def all_versions_are_finite(fleet: SplitFleet, bundle: Bundle) -> bool:
    """Of those that are kept."""
    with fleet.coordinator.journal() as journal:
        vectors = [read_weights(each.weights, bundle.description.version.parameters) for each in journal.versions(TASK)]
    return len(vectors) > 1 and all(np.isfinite(vector).all() for vector in vectors)


class NotFiniteDevice(DeviceMember):
    """Approved, with the key that its name has; it sends what the shipped program keeps back."""

    def answers_to(self, bundle: Bundle, *values: float) -> list[StepAnswer]:
        """What the helper says to forward passes of the generator whose activations are all of such a value."""
        plan = bundle.description.split
        (first, end), *_ = plan.cut(CUT).helper
        asked = []
        for step, value in enumerate(values):
            packed = pack_activations(np.full((ROWS, *plan.blocks[first - 1].output_shape), value, np.float32), WIRE)
            request = StepRequest(2 * step + 1, "forward", step, first, end, ROWS, step, False, WIRE, packed)
            asked.append(self.end.request(msgspec.msgpack.encode(request)))
        turning(self, when=lambda: self.answers.keys() >= set(asked), what="the helper has answered")
        return [msgspec.msgpack.decode(self.answers[each], type=StepAnswer) for each in asked]


def test_devices_whose_numbers_are_not_finite_cost_nobody_else_anything(fleet: SplitFleet, bundle: Bundle) -> None:
    helper = fleet.helper(HONEST)
    hostile = fleet.member(NotFiniteDevice, "shed-pi")
    hostile.open(Wanted(TASK, bytes.fromhex(bundle.hash), CUT, 0))
    turning(hostile, when=lambda: hostile.events, what="the relay has answered")
    assert isinstance(hostile.events[0], Granted), hostile.events[0]
    for answer in hostile.answers_to(bundle, float("nan"), float("inf")):
        assert answer.problem and not answer.packed
    absurd, usual = device(fleet, "absurd", LARGEST), device(fleet, "usual")
    until(lambda: "event=round_failed" in absurd.log(), "its round ends with words")
    for value in (float("nan"), float("inf"), -float("inf")):
        assert "can be trained on" in absurd.ask(picture(value))["error"], "what is no number is not taken at all"
    failed = next(line for line in absurd.log().splitlines() if "event=round_failed" in line)
    assert "training diverged" in failed
    assert f"inputs 3 to {LARGEST:g}" in failed, "which say what its samples are like, digit and picture"
    version = fleet.versions()
    until(lambda: fleet.versions() > version, "versions are made")
    assert "event=round_failed" not in usual.log()
    assert "event=middle_failed" not in helper.log()
    assert f"helper={HONEST}" in absurd.log(), "it does without the helper for a while, as the numbers may be its"
    assert absurd.status()["accepted_updates"] == 0
    assert all_versions_are_finite(fleet, bundle)
    verdict = fleet.audited()
    assert (verdict.lost, verdict.duplicated, verdict.rejected) == (0, 0, 0)


def test_a_helper_that_gives_no_numbers_is_left_out_and_versions_go_on_with_another(
    fleet: SplitFleet, bundle: Bundle
) -> None:
    plan = bundle.description.split
    asked: list[StepRequest] = []

    def no_number(message: bytes) -> bytes:
        request = msgspec.msgpack.decode(message, type=StepRequest)
        asked.append(request)
        block = request.end - 1 if request.direction == "forward" else request.first - 1
        values = np.full((request.rows, *plan.blocks[block].output_shape), np.nan, np.float32)
        return msgspec.msgpack.encode(StepAnswer(request.number, pack_activations(values, request.wire)))

    rogue = fleet.member(HelperMember, ROGUE, is_helper=True, work=no_number)

    def is_known() -> bool:
        rogue.offer(TASK, bytes.fromhex(bundle.hash))
        rogue.turn()
        return bool(fleet.relay_counts("edgeflock_helpers")[""])

    until(is_known, "the relay takes it for a helper")
    usual = device(fleet, "usual")
    waits = f"{ROGUE} is left out for"
    turning(rogue, when=lambda: waits in usual.status()["tasks"][TASK]["reason"], what="the device says whom it leaves")
    assert len(asked) >= 8
    left_out = next(line for line in usual.log().splitlines() if "event=helper_left_out" in line)
    assert f"helper={ROGUE}" in left_out
    assert "NaN or infinity" in left_out
    fleet.helper(HONEST)
    turning(rogue, when=lambda: fleet.versions() >= 2, what="versions are made with the other one")
    assert all_versions_are_finite(fleet, bundle)
    verdict = fleet.audited()
    assert (verdict.lost, verdict.duplicated, verdict.rejected) == (0, 0, 0)
