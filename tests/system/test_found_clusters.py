"""Two kinds of devices are told apart by what a helper sees of them: helper, relay and coordinator as they ship."""

import msgspec
import numpy as np

from broker_coordinator.storage.cluster_registry import ClusterRegistry
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.codec.activations import pack_activations
from fleet_protocol.sessions.events import Granted, Wanted
from fleet_protocol.sessions.steps import StepAnswer, StepRequest
from tests.support.device import SigningDevice
from tests.support.helper import CUT, TASK
from tests.support.session_members import DeviceMember, turning
from tests.support.split_fleet import SplitFleet
from tests.support.split_session import shipped
from tests.support.waiting import until
from workbench.demo.audit import audit, read_ledger

PLAN = shipped().description.split
BEFORE, AFTER = (PLAN.blocks[block].output_shape for block in (0, 1))
ROWS = 8
KINDS = {f"{kind}-{number}": value for kind, value in (("dark", 0.1), ("light", 2.0)) for number in range(4)}
"""The mean of what each device's first block gives."""


class SplitDevice(DeviceMember):
    """A device whose first block gives noise around a value; it trains the helper's block for one step."""

    def teach(self, bundle: bytes, mean: float, seed: int) -> None:
        self.open(Wanted(TASK, bundle, CUT, 0))
        turning(self, when=lambda: self.events, what="the relay has answered")
        assert isinstance(self.events[0], Granted), self.events[0]
        generator = np.random.default_rng(seed)
        self._pass("forward", generator.normal(mean, 0.05, (ROWS, *BEFORE)).astype(np.float32))
        self._pass("backward", generator.normal(0, 1e-4, (ROWS, *AFTER)).astype(np.float32))

    def _pass(self, direction, values: np.ndarray) -> None:
        wire = PLAN.activations if direction == "forward" else PLAN.gradients
        number = 1 + (direction == "backward")
        packed = pack_activations(values, wire)
        request = StepRequest(number, direction, 0, 1, 2, ROWS, 0, direction == "backward", wire, packed)
        asked = self.end.request(msgspec.msgpack.encode(request))
        turning(self, when=lambda: asked in self.answers, what="the helper has answered")
        answer = msgspec.msgpack.decode(self.answers[asked], type=StepAnswer)
        assert not answer.problem

    def say_goodbye(self) -> None:
        self.end.leave()
        self.turn()

    def update(self, sequence: int, shapes: tuple[tuple[int, ...], ...]) -> None:
        """An update of all blocks: any, so that a version is made."""
        signer = SigningDevice(self.identity.device, self.key)
        self.send_up(signer.update(sequence, task=TASK, shapes=shapes))


def test_devices_of_two_kinds_are_in_two_clusters_behind_the_second_version(fleet: SplitFleet) -> None:
    bundle = fleet.begin(steps=1, buffer_size=1, clusters=ClusterPlan(3, activations="4"))
    helper = fleet.helper("cellar-pi")
    devices = {name: fleet.member(SplitDevice, name) for name in KINDS}
    for seed, (name, device) in enumerate(devices.items()):
        device.teach(bytes.fromhex(bundle.hash), KINDS[name], seed)
    gone, *others = devices.values()
    for device in others:
        device.say_goodbye()
    gone.end.request(b"what is no request")  # the session ends badly, and counts all the same
    gone.turn()
    until(lambda: fleet.summaries() == len(KINDS), "the helper has said something of each device")
    first = others[0]
    for number in (1, 2):
        assert fleet.clusters() == {}, "the first two federations are plain"
        first.update(number, bundle.description.trained_shapes)
        until(lambda n=number: fleet.versions() >= n, "the next version is made")
    until(fleet.clusters, "clusters are found")
    found = fleet.clusters()
    assert {name: found[name] for name in KINDS} == {name: 1 + name.startswith("light") for name in KINDS}
    assert helper.name not in found
    with fleet.coordinator.journal() as journal:
        finding = ClusterRegistry(journal.engine).finding(TASK)
    assert finding.samples == dict.fromkeys(sorted(KINDS), ROWS)
    until(lambda: "clusters_found" in fleet.coordinator.log(), "it is said")
    helper.stop()
    ledger = read_ledger(helper.folder / "state" / "agent.db")
    with fleet.coordinator.journal() as journal:
        verdict = audit({helper.name: ledger}, [row for row in journal.payloads(TASK) if row.device == helper.name])
    assert (verdict.lost, verdict.duplicated, verdict.rejected) == (0, 0, 0)
