"""A device asks for a file by its hash, or for a packed version of the weights. Pure."""

from dataclasses import replace

from broker_coordinator.admission.consumer import Authentic, ControlConsumer
from broker_coordinator.admission.decisions import Decision, FileRequested
from broker_coordinator.admission.fleet_view import Device, FleetView
from broker_coordinator.admission.settings import AdmissionSettings
from fleet_protocol import topics
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import BLOB_REQUEST, WEIGHTS_REQUEST, BlobRequest, WeightsRequest
from fleet_protocol.limits import BOOT_SHIFT, MAX_BOOT
from fleet_protocol.topics import PackedWeights


def admit_blob_request(
    request: BlobRequest, authentic: Authentic, _view: FleetView, _settings: AdmissionSettings
) -> Decision:
    """Chunks of a blob."""
    device = requesting(authentic)
    blob = request.blob.hex()
    if not topics.is_blob_hash(blob):
        raise ProtocolError(Reason.MALFORMED, f"a blob is named by 32 bytes, not {len(request.blob)}")
    return FileRequested(device, blob, tuple(request.chunks))


def admit_weights_request(
    request: WeightsRequest, authentic: Authentic, view: FleetView, _settings: AdmissionSettings
) -> Decision:
    """Chunks of packed weights."""
    device = requesting(authentic)
    task = authentic.parsed.envelope.header.task
    if task not in view.tasks:
        raise ProtocolError(Reason.UNKNOWN_TASK, f"task {task!r} is not served here")
    return FileRequested(device, PackedWeights(task, request.version, request.base), tuple(request.chunks))


def requesting(authentic: Authentic) -> Device:
    """The device, with the sequence number of its request, which must be a new one.

    A device at its last boot number starts its counter again at every start: there a repeated request is taken again.
    """
    device = authentic.device
    sequence = authentic.parsed.envelope.header.sequence
    if sequence <= device.request_sequence and sequence >> BOOT_SHIFT < MAX_BOOT:
        raise ProtocolError(
            Reason.SEQUENCE_REUSED, f"request {sequence} of {device.name} is not after {device.request_sequence}"
        )
    return replace(device, request_sequence=sequence)


BLOB_REQUEST_CONSUMER = ControlConsumer(BLOB_REQUEST, admit_blob_request)
WEIGHTS_REQUEST_CONSUMER = ControlConsumer(WEIGHTS_REQUEST, admit_weights_request)
