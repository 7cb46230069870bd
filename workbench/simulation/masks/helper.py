"""Mask helpers in virtual time: the shipped cores, and claims that last as long as the run."""

import hashlib
from collections.abc import Iterable, Mapping

from broker_coordinator.admission.decisions import Message
from edge_agent.shell.connection.identity import Identity
from fleet_protocol.keys import SigningKey, VerifyKey, write_verify_key
from fleet_protocol.kinds import ENROLMENT, MASK_REPLY, Enrolment, MaskRequest, encode_payload
from fleet_protocol.limits import MAX_MASK_REQUEST_BYTES
from fleet_protocol.privacy.mask_plan import MaskPlan
from secure_aggregation.helper.claims import ClaimsInMemory
from secure_aggregation.helper.mask_helper import MaskHelper
from secure_aggregation.helper.set_checks import HelperPolicy
from session_relay.helper.mask_serving import reply_to
from workbench.simulation.messages import PROFILE, SOFTWARE, SignedMessages


def mask_keys(names: Iterable[str]) -> dict[str, str]:
    """What `edgeflock-helper mask-key` would print at each of these helpers, in every simulation."""
    return {name: write_verify_key(_mask_key(name).verify_key) for name in names}


def mask_helpers(
    plan: MaskPlan, messages: SignedMessages, roster: Mapping[str, VerifyKey]
) -> list["SimulatedMaskHelper"]:
    """Those that a task names, whose owners know all devices and ask for as many of them as the task does."""
    policy = HelperPolicy(fewest_devices=plan.fewest_devices, fewest_per_weight=plan.fewest_devices)
    helpers = []
    for name in plan.helpers:
        identity = messages.identity(name)
        helper = MaskHelper(_mask_key(name), identity.coordinator, roster, policy, ClaimsInMemory())
        helpers.append(SimulatedMaskHelper(identity, helper))
    return helpers


def _mask_key(name: str) -> SigningKey:
    # A task names its helpers' keys before a simulation has a seed.
    return SigningKey(hashlib.sha256(f"mask helper {name}".encode()).digest())


class SimulatedMaskHelper:
    """One that is always on. `asked_on` is the topic on which it hears the coordinator."""

    def __init__(self, identity: Identity, helper: MaskHelper) -> None:
        self.asked_on = identity.down_topic
        self._identity = identity
        self._helper = helper

    def enrolment(self, task: str) -> Message:
        """Its first message."""
        enrolment = Enrolment(self._identity.public_key, PROFILE, SOFTWARE, [task])
        return Message(self._identity.up_topic, self._identity.sign_control(ENROLMENT, encode_payload(enrolment)))

    def reply(self, signed: bytes) -> Message | None:
        """What it says to a message of the coordinator; None where that is no request."""
        request, _ = self._identity.verify_from_coordinator(self.asked_on, signed, MAX_MASK_REQUEST_BYTES)
        if not isinstance(request, MaskRequest) or (reply := reply_to(request, self._helper)) is None:
            return None
        return Message(self._identity.up_topic, self._identity.sign_control(MASK_REPLY, encode_payload(reply)))
