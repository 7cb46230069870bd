"""Messages that are sent under another shard than they were signed for: one form, and the same bytes count once."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.admission.admission import Admission
from broker_coordinator.admission.decisions import Accepted, Message, Refused, Repeated
from broker_coordinator.admission.fleet_view import Device, DeviceState, FleetView, TaskProgress
from broker_coordinator.admission.settings import AdmissionSettings
from broker_coordinator.consumers import CONSUMERS
from fleet_protocol import cbor, topics
from fleet_protocol.envelope import digest
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.moved_message import MovedMessage, read_moved, write_moved
from tests.support.bundles import TASK, write_bundle
from tests.support.device import SigningDevice
from tests.support.fleet import FLEET, SHARD

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "moved_messages.json").read_text())
HERE = "1"
SETTINGS = AdmissionSettings(FLEET, HERE, open_enrolment=True, maximum_devices=100, shards=(SHARD, HERE))


@pytest.mark.parametrize("vector", VECTORS)
def test_vectors_are_written_and_read(vector):
    moved = MovedMessage(vector["input"]["shard"], bytes.fromhex(vector["input"]["envelope_hex"]))
    assert write_moved(moved) == bytes.fromhex(vector["hex"]) == cbor.encode([moved.shard, moved.envelope])
    assert read_moved(write_moved(moved)) == moved


@given(st.binary(max_size=400).map(lambda data: b"\x82" + data))
def test_whatever_begins_like_one_is_one_in_its_only_form_or_malformed(data):
    try:
        moved = read_moved(data)
    except ProtocolError as error:
        assert error.reason is Reason.MALFORMED
    else:
        assert write_moved(moved) == data


@pytest.mark.parametrize(
    "parts", [["0"], ["0", "text"], [0, b""], ["A", b""], ["", b""], ["a/b", b""], ["0", b"", b""]]
)
def test_other_arrays_are_malformed_or_none(parts):
    data = cbor.encode(parts)
    if len(parts) != 2:
        assert read_moved(data) is None
        return
    with pytest.raises(ProtocolError):
        read_moved(data)


@pytest.fixture
def view(tmp_path: Path) -> FleetView:
    description = write_bundle(tmp_path / "bundle").description
    decided: dict = {}
    view = FleetView(lambda device, sequence: decided.get((device, sequence)))
    view.tasks[TASK] = TaskProgress.standing_at(description, 0, 0, 1000)
    return view


@pytest.fixture
def device(view: FleetView) -> SigningDevice:
    device = SigningDevice("kitchen-pi")
    view.set_device(Device(device.name, device.key.verify_key, DeviceState.APPROVED))
    return device


def admitted(view: FleetView, *messages: Message) -> list:
    return list(Admission(SETTINGS, CONSUMERS).admit_all(messages, view))


def under(shard: str, device: SigningDevice, data: bytes) -> Message:
    return Message(topics.up(FLEET, shard, device.name), data)


def moved_update(device: SigningDevice, sequence: int = 1, shard: str = SHARD) -> bytes:
    return write_moved(MovedMessage(shard, device.update(sequence)))


def test_update_of_a_device_that_has_moved_is_taken_as_it_was_signed(view, device):
    (accepted,) = admitted(view, under(HERE, device, moved_update(device)))
    assert isinstance(accepted, Accepted)
    assert accepted.envelope == device.update(1), "the journal has what its replay verifies"
    assert accepted.envelope_digest == digest(device.update(1)), "which its receipt names"


def test_it_counts_once_however_often_it_comes_moved(view, device):
    message = under(HERE, device, moved_update(device))
    first, second = admitted(view, message, message)
    assert isinstance(first, Accepted)
    assert isinstance(second, Repeated)


def test_unmoved_bytes_under_another_shard_are_not_verified(view, device):
    (refused,) = admitted(view, under(HERE, device, device.update(1)))
    assert (refused.reason, refused.burned_sequence) == (Reason.BAD_SIGNATURE, None)


def test_shard_that_it_was_not_signed_for_is_not_verified(view, device):
    (refused,) = admitted(view, under(HERE, device, moved_update(device, shard="7")))
    assert (refused.reason, refused.burned_sequence) == (Reason.BAD_SIGNATURE, None)


def test_message_of_another_device_is_refused_however_it_is_moved(view, device):
    other = SigningDevice("garden-pi")
    view.set_device(Device(other.name, other.key.verify_key, DeviceState.APPROVED))
    (refused,) = admitted(view, under(HERE, other, moved_update(device)))
    assert (refused.reason, refused.burned_sequence) == (Reason.WRONG_TOPIC, None)


def test_only_what_waits_for_a_receipt_may_come_moved(view, device):
    (refused,) = admitted(view, under(HERE, device, write_moved(MovedMessage(SHARD, device.enrolment()))))
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.MALFORMED
    assert "signed for the shard that it is sent under" in refused.detail


def test_moved_message_in_a_moved_message_is_malformed(view, device):
    twice = write_moved(MovedMessage(SHARD, moved_update(device)))
    (refused,) = admitted(view, under(HERE, device, twice))
    assert refused.reason is Reason.MALFORMED
