"""What a captured message says, in words; whatever was not verified is shown as unverified."""

import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from broker_coordinator.admission.fleet_view import Device
from fleet_protocol.codec import HeldBlocks, inspect_update, without_statistics
from fleet_protocol.codec.container import FORMAT, read_first_byte
from fleet_protocol.encryption import BOX_OVERHEAD_BYTES, decrypt_payload
from fleet_protocol.envelope import Envelope, Header, read_envelope
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.keys import KeyRing, VerifyKey, key_id, read_verify_key
from fleet_protocol.kinds import ENROLMENT, FROM_COORDINATOR, EncryptedPayload, Enrolment, Update, decode_payload
from fleet_protocol.limits import BOOT_SHIFT, MAX_UPDATE_BYTES
from fleet_protocol.task_description import TaskDescription

MAX_SHOWN_BYTES = 16
CAPTURE = "capture one whole message: mosquitto_sub -C 1 -F %x -t TOPIC"
_HEX = re.compile(rb"[0-9A-Fa-f]+")


@dataclass(frozen=True, slots=True)
class DecodingContext:
    """What decoding can use besides the message; every field is optional."""

    topic: str | None = None
    key: VerifyKey | None = None
    devices: Sequence[Device] = ()
    coordinator: KeyRing = ()
    """The coordinator's private keys: they decrypt updates."""
    tasks: Sequence[TaskDescription] = ()

    def task(self, name: str) -> TaskDescription | None:
        """The task that a message names."""
        return next((task for task in self.tasks if task.task == name), None)


@dataclass(frozen=True, slots=True)
class Described:
    """`lines` are labels with what they say; `refuted` where a check that could be made has failed."""

    lines: list[tuple[str, str]]
    refuted: bool


def message_bytes(captured: bytes, name: str) -> bytes:
    """The message, whether it was captured raw or as hex digits; `name` says where it is from.

    Raises:
        ConfigurationError: there is none, or half of a digit pair is missing.
    """
    text = b"".join(captured.split())
    if not text:
        raise ConfigurationError(f"{name}: it is empty; {CAPTURE}")
    if not _HEX.fullmatch(text):
        return captured
    if len(text) % 2:
        raise ConfigurationError(f"{name}: {len(text)} hex digits are an odd number, it is cut off; {CAPTURE}")
    return binascii.unhexlify(text)


def describe(data: bytes, context: DecodingContext, name: str = "message") -> Described:
    """Describe a message as far as it can be read; `name` says where it is from.

    Raises:
        ConfigurationError: it is no envelope of this protocol.
    """
    try:
        envelope = read_envelope(data, MAX_UPDATE_BYTES)
    except ProtocolError as error:
        raise ConfigurationError(f"{name}: no message of edgeflock's protocol: {error.detail}; {CAPTURE}") from error
    header = envelope.header
    overhead = len(data) - len(envelope.payload)
    sizes = f"{len(data)} bytes: payload {len(envelope.payload)}, envelope and header {overhead}"
    lines = [
        ("message", f"{header.kind.name}, {sizes}"),
        ("from", _sender(envelope, context)),
        ("sequence", _sequence(header)),
    ]
    if header.task:
        lines.append(("task", f"{header.task}, made from version {header.base_version}"))
    readable = True
    try:
        payload = decode_payload(envelope.payload, header.kind.payload)
        if isinstance(payload, EncryptedPayload):
            lines.append(("encrypted", _encryption(payload, context.coordinator)))
            if context.coordinator:
                payload = decode_payload(decrypt_payload(envelope, context.coordinator), header.kind.decrypted.payload)
        if not isinstance(payload, EncryptedPayload):
            lines += _fields(payload)
        if isinstance(payload, Update):
            lines += _packing(payload, context.task(header.task))
    except ProtocolError as error:
        lines.append(("payload", f"refused, {error}"))
        readable = False
    verdict, is_valid = _verdict(envelope, context)
    return Described([*lines, ("verified", verdict)], refuted=not (is_valid and readable))


def _sequence(header: Header) -> str:
    """What is not journalled is numbered by the device's boots."""
    if header.kind.journalled or header.kind.leaf in FROM_COORDINATOR:
        return str(header.sequence)
    boot, message = divmod(header.sequence, 1 << BOOT_SHIFT)
    return f"{header.sequence}: message {message} of boot {boot}"


def _sender(envelope: Envelope, context: DecodingContext) -> str:
    device = _device(envelope, context)
    if _coordinator_key(envelope, context) is not None:
        return f"key {envelope.key_id.hex()}, the coordinator"
    return f"key {envelope.key_id.hex()}" + (f", {device.name} ({device.state.value})" if device else "")


def _device(envelope: Envelope, context: DecodingContext) -> Device | None:
    return next((device for device in context.devices if key_id(device.public_key) == envelope.key_id), None)


def _fields(payload: msgspec.Struct) -> list[tuple[str, str]]:
    fields = msgspec.structs.asdict(payload)
    packed = fields.pop("packed", None)
    lines = [(name.replace("_", " "), _shown(value)) for name, value in fields.items()]
    return lines if packed is None else [*lines, ("packed", f"{len(packed)} bytes")]


def _encryption(encrypted: EncryptedPayload, coordinator: KeyRing) -> str:
    decrypted = "decrypted" if coordinator else "give --coordinator-key-file to decrypt it"
    size = f"{len(encrypted.box)} bytes, of which {BOX_OVERHEAD_BYTES} are the box itself"
    return f"{size}, for the coordinator key {_shown(encrypted.recipient)}; {decrypted}"


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        rest = f"… ({len(value)} bytes)" if len(value) > MAX_SHOWN_BYTES else ""
        return value[:MAX_SHOWN_BYTES].hex() + rest
    if isinstance(value, str):
        return repr(str(value))[1:-1] or "-"  # a stranger wrote it: no control characters on the terminal
    return repr(value)


def _packing(sent: Update, task: TaskDescription | None) -> list[tuple[str, str]]:
    first = read_first_byte(sent.packed)
    container = "zstd" if first.compressed else "not compressed"
    gaps = "bits" if first.positions_in_bits else "whole bytes"
    how = f"format {FORMAT}, {first.quantisation.name.lower()}, positions in {gaps}, {container}"
    if task is None:
        return [("packing", how), ("entries", "unknown without the task's shapes; give --bundle or --config")]
    held = HeldBlocks.of(task, sent.held)
    update, stages = inspect_update(without_statistics(sent.packed, held.statistics.size), held.shapes)
    parts = ", ".join(
        f"{name} {bits / 8:g}"
        for name, bits in (
            ("positions", stages.position_bits),
            ("scales", stages.scale_bits),
            ("values", stages.code_bits),
        )
    )
    kept = update.indices.size / held.trained.size
    return [
        ("packing", f"{how}, scanned by {'column' if stages.by_column else 'row'}"),
        ("stages", f"{parts} bytes: body {stages.body_bytes}, travels as {stages.stored_bytes} and 1 in front"),
        ("entries", f"{update.indices.size} of {held.trained.size} ({kept:.2%}), norm {update.norm():.4g}"),
    ]


def _verdict(envelope: Envelope, context: DecodingContext) -> tuple[str, bool]:
    """In words, and False where a check has failed."""
    for find in _KEY_SOURCES:
        if (key := find(envelope, context)) is not None:
            break
    else:
        return "not checked: the key is unknown; give --key, --database or --config", True
    if key_id(key) != envelope.key_id:
        return f"no: signed with key {envelope.key_id.hex()}, the given one is {key_id(key).hex()}", False
    if context.topic is None:
        return "not checked: the signature covers the topic; give --topic", True
    try:
        envelope.verify(key, context.topic)
    except ProtocolError as error:
        return f"no, {error}", False
    return f"yes, for topic {context.topic}", True


def _given_key(_: Envelope, context: DecodingContext) -> VerifyKey | None:
    return context.key


def _registered_key(envelope: Envelope, context: DecodingContext) -> VerifyKey | None:
    device = _device(envelope, context)
    return device.public_key if device else None


def _coordinator_key(envelope: Envelope, context: DecodingContext) -> VerifyKey | None:
    keys = (key.verify_key for key in context.coordinator)
    return next((key for key in keys if key_id(key) == envelope.key_id), None)


def _enrolled_key(envelope: Envelope, _: DecodingContext) -> VerifyKey | None:
    """An enrolment proves possession of the very key that it names."""
    if envelope.header.kind is not ENROLMENT:
        return None
    try:
        return VerifyKey(decode_payload(envelope.payload, Enrolment).public_key)
    except (ProtocolError, ValueError):
        return None


_KEY_SOURCES: Final[Sequence[Callable[[Envelope, DecodingContext], VerifyKey | None]]] = (
    _given_key,
    _registered_key,
    _coordinator_key,
    _enrolled_key,
)


def parse_key(text: str) -> VerifyKey:
    """A public key in hex.

    Raises:
        ConfigurationError: it isn't one.
    """
    return read_verify_key(text, "--key", "`edge-agent key`, or `broker-coordinator key` for the coordinator's,")
