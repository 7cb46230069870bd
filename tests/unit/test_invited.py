"""What an enrolment with an invitation may do: one device, of that name, while the invitation is open."""

from dataclasses import replace

import pytest

from broker_coordinator.admission.admission import Admission
from broker_coordinator.admission.decisions import Decision, Enrolled, Message, Refused
from broker_coordinator.admission.fleet_view import Device, DeviceState, FleetView
from broker_coordinator.admission.invited import InvitationState, Invited
from broker_coordinator.admission.settings import AdmissionSettings
from broker_coordinator.consumers import CONSUMERS
from broker_coordinator.distribution.signed_messages import MessageSigner
from broker_coordinator.serving.answers import Receipts
from edge_agent.shell.connection.identity import Identity
from fleet_protocol.device_invitation import prove_invitation
from fleet_protocol.envelope import read_envelope
from fleet_protocol.errors import Reason
from fleet_protocol.keys import SigningKey, key_id, write_verify_key
from fleet_protocol.kinds import ENROLMENT, Enrolment, Outcome, Receipt, encode_payload
from fleet_protocol.limits import MAX_CONTROL_BYTES

COORDINATOR, TOKEN, KITCHEN, COPY = (SigningKey(bytes([number]) * 32) for number in range(1, 5))
INVITED = Invited("kitchen-pi", TOKEN.verify_key, 2_000_000_000)
ADMISSION = Admission(AdmissionSettings("home", "0", open_enrolment=False, maximum_devices=10), CONSUMERS)


def view_with(*invited: Invited, devices: tuple[Device, ...] = ()) -> FleetView:
    view = FleetView(lambda _device, _sequence: None)
    view.set_devices(devices)
    view.invitations.update({each.identifier: each for each in invited})
    return view


def enrolment(key: SigningKey, *, name: str = "kitchen-pi", token: SigningKey = TOKEN, proof: bytes = b"") -> Message:
    identity = Identity("home", "0", name, key, write_verify_key(COORDINATOR.verify_key))
    shown = proof or prove_invitation(token, identity.up_topic, key.verify_key)
    payload = Enrolment(identity.public_key, "generic", "test", [], key_id(token.verify_key), shown)
    return Message(identity.up_topic, identity.sign_control(ENROLMENT, encode_payload(payload)))


def decide(view: FleetView, *messages: Message) -> list[Decision]:
    return list(ADMISSION.admit_all(messages, view))


def test_an_invited_device_is_approved_and_may_ask_again() -> None:
    first, again = decide(view_with(INVITED), enrolment(KITCHEN), enrolment(KITCHEN))
    assert isinstance(first, Enrolled)
    assert (first.device.state, first.invitation) == (DeviceState.APPROVED, INVITED.identifier)
    assert isinstance(again, Enrolled)
    assert (again.device.state, again.invitation) == (DeviceState.APPROVED, b"")


def test_one_invitation_admits_one_key_within_a_batch_too() -> None:
    _, second = decide(view_with(INVITED), enrolment(KITCHEN), enrolment(COPY))
    assert isinstance(second, Refused)
    assert (second.reason, "is spent" in second.detail) == (Reason.BAD_INVITATION, True)


@pytest.mark.parametrize("state", [state for state in InvitationState if state is not InvitationState.OPEN])
def test_an_invitation_that_is_not_open_admits_nobody_and_leaves_no_trace(state: InvitationState) -> None:
    view = view_with(replace(INVITED, state=state))
    (refused,) = decide(view, enrolment(KITCHEN))
    assert isinstance(refused, Refused)
    assert (refused.reason, state.value in refused.detail) == (Reason.BAD_INVITATION, True)
    assert not view.devices


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(enrolment(KITCHEN, name="attic-pi"), id="of another device"),
        pytest.param(enrolment(KITCHEN, token=COPY), id="unknown"),
        pytest.param(enrolment(KITCHEN, proof=b"\x01" * 64), id="without the token"),
        pytest.param(
            enrolment(COPY, proof=prove_invitation(TOKEN, "edgeflock/v1/home/0/kitchen-pi/up", KITCHEN.verify_key)),
            id="with another device's proof",
        ),
    ],
)
def test_what_is_no_invitation_for_this_device_admits_nobody(message: Message) -> None:
    view = view_with(INVITED)
    (refused,) = decide(view, message)
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.BAD_INVITATION
    assert view.invitations[INVITED.identifier].state is InvitationState.OPEN
    assert not view.devices


def test_a_bound_name_has_another_key_only_where_the_invitation_says_so() -> None:
    bound = Device("kitchen-pi", COPY.verify_key, DeviceState.APPROVED)
    (refused,) = decide(view_with(INVITED, devices=(bound,)), enrolment(KITCHEN))
    assert isinstance(refused, Refused)
    assert "--again" in refused.detail
    view = view_with(replace(INVITED, replaces=True), devices=(bound,))
    (enrolled,) = decide(view, enrolment(KITCHEN))
    assert isinstance(enrolled, Enrolled)
    assert enrolled.replaced == replace(bound, state=DeviceState.REVOKED)
    assert view.key_of["kitchen-pi"] == key_id(KITCHEN.verify_key)


def test_an_invitation_does_not_bring_back_a_revoked_key() -> None:
    revoked = Device("kitchen-pi", KITCHEN.verify_key, DeviceState.REVOKED)
    (refused,) = decide(view_with(INVITED, devices=(revoked,)), enrolment(KITCHEN))
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.REVOKED_KEY


@pytest.mark.parametrize("state", [InvitationState.OPEN, InvitationState.SPENT])
def test_a_device_is_answered_with_the_key_that_its_invitation_names(state: InvitationState) -> None:
    newest, former = MessageSigner(COPY, "home", "0"), COORDINATOR
    named = replace(INVITED, state=state, coordinator_key=key_id(former.verify_key))
    view = view_with(named)
    message = enrolment(KITCHEN)
    (decision,) = decide(view, message)
    receipt = Receipts(newest, (COPY, former)).receipt(decision, view, 0.0)
    assert receipt is not None
    identity = Identity("home", "0", "kitchen-pi", KITCHEN, write_verify_key(former.verify_key))
    answer, _ = identity.verify_from_coordinator(receipt.topic, receipt.data, MAX_CONTROL_BYTES)
    assert isinstance(answer, Receipt)
    assert answer.outcome is (Outcome.ACCEPTED if state is InvitationState.OPEN else Outcome.REJECTED)


def test_whoever_shows_no_invitation_of_before_is_answered_with_the_newest_key() -> None:
    view = view_with(replace(INVITED, coordinator_key=bytes(8)))
    for message in (enrolment(KITCHEN), enrolment(COPY, token=KITCHEN)):
        (decision,) = decide(view, message)
        receipt = Receipts(MessageSigner(COPY, "home", "0"), (COPY, COORDINATOR)).receipt(decision, view, 0.0)
        assert receipt is not None
        read_envelope(receipt.data, MAX_CONTROL_BYTES).verify(COPY.verify_key, receipt.topic)
