"""The signed envelope: COSE_Sign1 (RFC 9052) with Ed25519 (algorithm -19, RFC 9864), bound to its topic.

The protected header contains the algorithm, the key id and one private entry: kind, sequence number, task, base
version, payload digest and, unless it is 0, the task's generation. The topic is `external_aad`: a message moved to
another topic does not verify.
"""

import hashlib
from typing import Final

import msgspec

from fleet_protocol import cbor
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import KEY_ID_BYTES, SIGNATURE_BYTES, SigningKey, VerifyKey, key_id, sign, verifies
from fleet_protocol.kinds import KINDS, PayloadKind
from fleet_protocol.limits import DIGEST_BYTES, MAX_GENERATION, MAX_NAME_CHARACTERS, MAX_SEQUENCE

_TAG: Final = b"\xd2"
"""18: COSE_Sign1."""
_UP_TO_PROTECTED: Final = _TAG + b"\x84"
"""An array of four: protected header, unprotected header, payload, signature."""
_NOTHING_UNPROTECTED: Final = b"\xa0"
_UP_TO_SIGNED: Final = b"\x84" + cbor.encode("Signature1")
"""An array of four: context, protected header, external data, payload."""
_ALGORITHM_LABEL: Final = 1
_KEY_ID_LABEL: Final = 4
_HEADER_LABEL: Final = -70001  # the private-use range of COSE header labels ends at -65537
_ED25519: Final = -19
_PROTECTED_FORM: Final = {_ALGORITHM_LABEL: _ED25519, _KEY_ID_LABEL: bytes(KEY_ID_BYTES), _HEADER_LABEL: 0}
_UP_TO_KEY_ID, _UP_TO_ENTRY = cbor.encode(_PROTECTED_FORM)[:-1].split(bytes(KEY_ID_BYTES))
_KEY_ID_AT: Final = len(_UP_TO_KEY_ID)
_KEY_ID_END: Final = _KEY_ID_AT + KEY_ID_BYTES
_ENTRY_AT: Final = _KEY_ID_END + len(_UP_TO_ENTRY)
"""A protected header has one form: a map of three, of which only the key id and the entry differ."""


class Header(msgspec.Struct, frozen=True, gc=False):
    """The fields that a reader needs before it decodes the payload."""

    kind: PayloadKind
    sequence: int
    task: str
    base_version: int
    payload_digest: bytes
    generation: int = 0


class _Entry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A header as it travels, the kind by its number. A generation of 0 is not written."""

    kind: int
    sequence: int
    task: str
    base_version: int
    payload_digest: bytes
    generation: int = 0


class Envelope(msgspec.Struct, frozen=True):
    """A parsed envelope; nothing in it is trusted until `verify` returns."""

    header: Header
    key_id: bytes
    payload: bytes
    protected: bytes
    signature: bytes

    def verify(self, key: VerifyKey, topic: str) -> None:
        """Check the signature for the topic on which the envelope came.

        Raises:
            ProtocolError: `BAD_SIGNATURE`.
        """
        if not verifies(key, _to_be_signed(self.protected, topic, self.payload), self.signature):
            raise ProtocolError(
                Reason.BAD_SIGNATURE,
                f"the signature of key {self.key_id.hex()} does not cover this message on topic {topic}",
            )


def digest(data: bytes) -> bytes:
    """The first 16 bytes of the SHA-256: names a payload in its header, and an envelope in its receipt."""
    return hashlib.sha256(data).digest()[:DIGEST_BYTES]


def sign_envelope(
    key: SigningKey,
    topic: str,
    kind: PayloadKind,
    payload: bytes,
    *,
    sequence: int,
    task: str = "",
    base_version: int = 0,
    generation: int = 0,
) -> bytes:
    """Sign `payload` for `topic`. The same arguments give the same bytes, as Ed25519 is deterministic."""
    header = Header(kind, sequence, task, base_version, digest(payload), generation)
    protected = _write_protected(header, key_id(key.verify_key))
    signature = sign(key, _to_be_signed(protected, topic, payload))
    return b"".join(
        (
            _UP_TO_PROTECTED,
            cbor.byte_string(protected),
            _NOTHING_UNPROTECTED,
            cbor.byte_string(payload),
            cbor.byte_string(signature),
        )
    )


def read_envelope(data: bytes, limit: int) -> Envelope:
    """Parse an envelope of at most `limit` bytes; its signature is not verified.

    Raises:
        ProtocolError: `TOO_LARGE`; `UNKNOWN_KIND`; `MALFORMED` for anything but the one form that `sign_envelope`
            writes.
    """
    if len(data) > limit:
        raise ProtocolError(Reason.TOO_LARGE, f"message of {len(data)} bytes exceeds the limit of {limit}")
    protected, payload, signature = _unframe(data)
    header, identifier = _read_protected(protected)
    if header.payload_digest != digest(payload):
        raise ProtocolError(Reason.MALFORMED, "payload does not match the digest in its header")
    return Envelope(header, identifier, payload, protected, signature)


def _unframe(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Protected header, payload and signature, read by hand: there is one form, and this runs before any check."""
    if data[: len(_UP_TO_PROTECTED)] != _UP_TO_PROTECTED:
        raise ProtocolError(Reason.MALFORMED, "message is not a tagged COSE_Sign1 of four parts")
    if (first := cbor.read_byte_string(data, len(_UP_TO_PROTECTED))) is not None:
        protected, at = first
        if data[at : at + 1] == _NOTHING_UNPROTECTED and (second := cbor.read_byte_string(data, at + 1)) is not None:
            payload, at = second
            if (third := cbor.read_byte_string(data, at)) is not None and third[1] == len(data):
                signature = third[0]
                if len(signature) == SIGNATURE_BYTES:
                    return protected, payload, signature
    raise ProtocolError(
        Reason.MALFORMED, f"envelope is not [protected, {{}}, payload, signature of {SIGNATURE_BYTES} bytes], canonical"
    )


def _write_protected(header: Header, identifier: bytes) -> bytes:
    return _UP_TO_KEY_ID + identifier + _UP_TO_ENTRY + _write_entry(header)


def _write_entry(header: Header) -> bytes:
    entry = [header.kind.number, header.sequence, header.task, header.base_version, header.payload_digest]
    if header.generation:
        entry.append(header.generation)
    return cbor.encode_plain(entry)


def _read_protected(protected: bytes) -> tuple[Header, bytes]:
    if protected[:_KEY_ID_AT] != _UP_TO_KEY_ID or protected[_KEY_ID_END:_ENTRY_AT] != _UP_TO_ENTRY:
        raise ProtocolError(
            Reason.MALFORMED,
            "protected header is not {1: -19, 4: key id, -70001: header}, canonical; -19 is Ed25519, no other algorithm"
            " is accepted",
        )
    entry = protected[_ENTRY_AT:]
    try:
        fields = msgspec.convert(cbor.parse(entry, "header"), _Entry, builtin_types=(bytes,))
        header = Header(
            KINDS[fields.kind],
            fields.sequence,
            fields.task,
            fields.base_version,
            fields.payload_digest,
            fields.generation,
        )
    except msgspec.ValidationError as error:
        raise ProtocolError(Reason.MALFORMED, f"header: {error}") from error
    except KeyError as error:
        raise ProtocolError(
            Reason.UNKNOWN_KIND, f"no kind of payload has the number {error} here; update edgeflock"
        ) from error
    if (
        len(header.task) > MAX_NAME_CHARACTERS
        or not 0 <= header.sequence <= MAX_SEQUENCE
        or not 0 <= header.base_version <= MAX_SEQUENCE
        or not 0 <= header.generation <= MAX_GENERATION
    ):
        raise ProtocolError(Reason.MALFORMED, "header has a value out of its range")
    if _write_entry(header) != entry:
        raise ProtocolError(Reason.MALFORMED, "header has more fields than this protocol writes")
    return header, protected[_KEY_ID_AT:_KEY_ID_END]


def _to_be_signed(protected: bytes, topic: str, payload: bytes) -> bytes:
    """The Sig_structure of RFC 9052, section 4.4."""
    return b"".join(
        (_UP_TO_SIGNED, cbor.byte_string(protected), cbor.byte_string(topic.encode()), cbor.byte_string(payload))
    )
