"""A coordinator on a database, devices that mask their updates, and mask helpers, without a network."""

import numpy as np
from sqlalchemy import select

from broker_coordinator.storage.cohort_registry import CohortRegistry
from broker_coordinator.storage.database import reading
from broker_coordinator.storage.schema import payloads
from edge_agent.training.masked_update import encryption_key
from fleet_protocol.bundle_files import KEY_HOLDER_FILE
from fleet_protocol.envelope import read_envelope
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import (
    MANIFEST,
    MASK_REQUEST,
    RECEIPT,
    Manifest,
    MaskRequest,
    Outcome,
    Receipt,
    decode_payload,
)
from fleet_protocol.limits import MAX_MASK_REQUEST_BYTES
from secure_aggregation.field import Field
from tests.support.bench import KEY, Bench
from tests.support.bundles import TASK
from tests.support.masked_task import MaskedDevice, MaskHelperOnDisk, masked_bundle


class CohortFleet:
    """A coordinator, devices and helpers, whose messages all arrive unless a test keeps them."""

    def __init__(self, folder, helpers=3, colluding=2, devices=3, *, retention=None, metrics=None, **plan):
        names = [f"mask-{number}" for number in range(helpers)]
        holder = plan.get("key_holder")
        self.helpers = {name: MaskHelperOnDisk(name, folder, holds_key=name == holder) for name in names}
        bundle = masked_bundle(folder / "bundle", list(self.helpers.values()), devices, colluding=colluding, **plan)
        options = {"retention": retention, "metrics": metrics}
        self.bench = Bench(folder / "one.db", bundle, **{name: value for name, value in options.items() if value})
        self.devices = [MaskedDevice(f"pi-{number}") for number in range(devices)]
        self.known = list(self.devices)
        for device in self.devices if holder else ():
            device.public = encryption_key(bundle.files[KEY_HOLDER_FILE], bundle.description)
        self.dead, self.sequence = set(), 10
        self.receipts, self.cohort, self.version, self.envelopes = {}, b"", 0, []
        for member in (*self.devices, *(helper.member for helper in self.helpers.values())):
            self.bench.handle(member, member.enrolment())
        self.turn()

    def turn(self, seconds=1.0):
        """Let the coordinator do what is due, and everybody hear what it says."""
        self.bench.now += seconds
        self.bench.make_versions()
        for said in self.bench.said():
            envelope = read_envelope(said.data, MAX_MASK_REQUEST_BYTES)
            envelope.verify(KEY.verify_key, said.topic)
            self._hear(said.topic.split("/")[-2], envelope)

    def settle(self, turns=8, seconds=1.0):
        for _ in range(turns):
            self.turn(seconds)

    def _hear(self, receiver, envelope):
        match envelope.header.kind:
            case kind if kind is MANIFEST:
                manifest = decode_payload(envelope.payload, Manifest)
                self.cohort, self.version = manifest.cohort, manifest.version
            case kind if kind is RECEIPT:
                receipt = decode_payload(envelope.payload, Receipt)
                self.receipts[receiver] = receipt
            case kind if kind is MASK_REQUEST and receiver not in self.dead:
                helper, request = self.helpers[receiver], decode_payload(envelope.payload, MaskRequest)
                if (reply := helper.reply(request, KEY.verify_key, self.known)) is not None:
                    self.sequence += 1
                    self.bench.handle(helper.member, helper.sent(reply, self.sequence))

    def send(self, devices, sequence=1):
        for device in devices:
            message = device.masked(self.cohort, sequence, self.version)
            self.envelopes.append(message)
            self.bench.handle(device, message)
        self.turn(0.0)

    def state(self):
        return self.bench.journal.newest_version(TASK).state(self.bench.description.version.parameters, {})

    def weights(self):
        return self.state().weights

    def journal_rows(self):
        with reading(self.bench.journal.engine) as connection:
            return connection.execute(select(payloads.c.position)).all()

    def outcome(self, device):
        receipt = self.receipts[device.name]
        return receipt.outcome if receipt.outcome is Outcome.ACCEPTED else Reason(receipt.reason)

    def states(self):
        return [each.state for each in CohortRegistry(self.bench.journal.engine).last(TASK, 10)]


def mean_of(devices, most):
    """What the version should move by: the plain mean of the levels that were sent."""
    field = Field(0.5, 12, most)
    return (sum(device.made.levels for device in devices) * (field.step / len(devices))).astype(np.float32)
