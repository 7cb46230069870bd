"""Where updates are summed behind masks: messages of helpers travel too, and receipts come when a cohort is settled."""

import math
from collections.abc import Sequence
from functools import partial

from broker_coordinator.admission.decisions import Message
from broker_coordinator.distribution.signed_messages import MessageSigner, Publication
from bundle_runtime.bundle import Bundle
from edge_agent.core.delivery import Remedy, remedy
from fleet_protocol import topics
from fleet_protocol.envelope import digest, read_envelope
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import MASKED_UPDATE, Outcome, Receipt, decode_payload
from fleet_protocol.limits import MAX_CONTROL_BYTES, MAX_UPDATE_BYTES
from workbench.simulation.conditions import Conditions
from workbench.simulation.masks.coordinator import MaskedCoordinator
from workbench.simulation.masks.helper import SimulatedMaskHelper
from workbench.simulation.messages import Parcel
from workbench.simulation.world import SimulatedWorld, Surroundings

HELPER_SECONDS = 0.1
"""That a message takes to a mask helper, and from it: gateways, which are always on and connected."""

SOON_SECONDS = 0.01
"""The least until the coordinator is asked again for what is due."""


class MaskedWorld(SimulatedWorld):
    """As `SimulatedWorld`, with `helpers`; `versioned` is called for each new cohort."""

    def __init__(
        self,
        bundle: Bundle,
        signer: MessageSigner,
        surroundings: Surroundings,
        helpers: Sequence[SimulatedMaskHelper],
    ) -> None:
        self._helpers = {each.asked_on: each for each in helpers}
        self._devices: dict[str, tuple[int, Conditions]] = {}
        self._staleness: dict[bytes, int | None] = {}
        """Of each update by its digest; None once its cohort is settled."""
        self._due = math.inf
        super().__init__(bundle, signer, surroundings)

    def _serving(self, bundle: Bundle, devices: int) -> MaskedCoordinator:
        members = devices + len(self._helpers)
        self._masked = MaskedCoordinator(bundle, self._signer, members, lambda most: int(self.generator.integers(most)))
        return self._masked

    def _begin(self) -> None:
        for helper in self._helpers.values():
            self._from_helper(helper.enrolment(self.task.task))

    def _arrive(self, parcel: Parcel, device: int, conditions: Conditions) -> None:
        assert isinstance(parcel, Message)  # noqa: S101 - `Simulation` signs where a task has masks
        message = parcel
        self._devices[answered_on(message.topic)] = device, conditions
        header = read_envelope(message.data, MAX_UPDATE_BYTES).header
        if header.kind.decrypted is MASKED_UPDATE:
            self._staleness.setdefault(digest(message.data), self.coordinator.version - header.base_version)
        self._masked.handle(message, self.queue.now)
        self._go_on()

    def _from_helper(self, message: Message) -> None:
        self.ledger.up["mask helpers"] += len(message.data)
        self._masked.handle(message, self.queue.now)
        self._go_on()

    def _go_on(self) -> None:
        """Let the coordinator do what is due, and carry what it says."""
        before = self.coordinator.manifest()
        for publication in self._masked.say(self.queue.now):
            self._carry(publication)
        if (after := self.coordinator.manifest()) != before:
            self._manifest_bytes = self.coordinator.manifest_bytes()
            if after.bundle != before.bundle:
                self._follow_scale(self._masked.bundle)
            self._announce_manifest()
            self._versioned()
        self._plan()

    def _plan(self) -> None:
        due = self._masked.next_due()
        if due is not None and not self.queue.now < self._due <= due:
            self._due = max(due, self.queue.now + SOON_SECONDS)
            self.queue.after(self._due - self.queue.now, partial(self._planned, self._due))

    def _planned(self, due: float) -> None:
        if due == self._due:
            self._go_on()

    def _carry(self, publication: Publication) -> None:
        topic, data = publication.topic, publication.data
        if (helper := self._helpers.get(topic)) is not None:
            self.ledger.down["mask helpers"] += len(data)
            self.queue.after(HELPER_SECONDS, partial(self._asked, helper, data))
        elif topic in self._devices:
            self._answer(*self._devices[topic], data)
            self._note(decode_payload(read_envelope(data, MAX_CONTROL_BYTES).payload, Receipt))

    def _asked(self, helper: SimulatedMaskHelper, data: bytes) -> None:
        if (reply := helper.reply(data)) is not None:
            self.queue.after(HELPER_SECONDS, partial(self._from_helper, reply))

    def _note(self, receipt: Receipt) -> None:
        """Count an update once, when its cohort is settled."""
        if receipt.reason == Reason.AWAITS_COHORT:
            return
        staleness = self._staleness.get(receipt.digest)
        if staleness is None:  # settled before, or no update: an enrolment is always accepted here
            return
        if remedy(receipt) is not Remedy.KEEP:  # else it is sent again later
            self._staleness[receipt.digest] = None
        if receipt.outcome is not Outcome.ACCEPTED:
            self.ledger.refuse(receipt.reason, receipt.detail)
        else:
            self.ledger.updates += 1
            self.ledger.staleness[staleness] += 1
            self._accepted()


def answered_on(up_topic: str) -> str:
    """Where the coordinator answers what comes on a device's topic."""
    fleet, shard, device = up_topic.split("/")[2:5]
    return topics.down(fleet, shard, device)
