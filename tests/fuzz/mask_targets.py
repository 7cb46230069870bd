"""Hostile messages of secure aggregation, signed by who should sign them: of a coordinator, devices and helpers."""

from collections.abc import Callable
from contextlib import suppress

from msgspec.structs import replace

from fleet_protocol.errors import ProtocolError
from fleet_protocol.keys import SigningKey, sign
from fleet_protocol.kinds import (
    MaskedUpdate,
    MaskReply,
    MaskRequest,
    Signed,
    SumRequest,
    decode_payload,
    encode_payload,
)
from fleet_protocol.privacy.encryption_plan import DEGREE, PARTS, ciphertext_bytes
from secure_aggregation.asking import Asking, Terms
from secure_aggregation.ciphertexts import unpack_ciphertext
from secure_aggregation.coordinator import VoidCohortError, admitted, unmasked
from secure_aggregation.device import DevicePolicy, accepted_cohort
from secure_aggregation.encryption_key import read_encryption_key, write_encryption_key
from secure_aggregation.messages import message_hash
from secure_aggregation.signatures import signed
from tests.support.masked_cohort import MaskedCohort, key_of, manifest_of

COHORT = MaskedCohort(manifest_of(2, 1), 2)
SET = COHORT.set_of(dict.fromkeys(COHORT.names, 1))
REQUEST = COHORT.request(SET)
ANSWERS = COHORT.answers(SET, (0, 1))
DEVICE = COHORT.names[0]
UPDATE = COHORT.rounds[DEVICE].update
POLICY = DevicePolicy(frozenset(COHORT.manifest.helpers), 2, 2)


def _signed(use: bytes, key: SigningKey, content: bytes) -> Signed:
    return Signed(content, sign(key, b"edgeflock/mask/" + use + content))


def _manifest(content: bytes) -> None:
    message = _signed(b"m", COHORT.coordinator, content)
    with suppress(ProtocolError):
        accepted_cohort(message, COHORT.coordinator.verify_key, POLICY, 16, 4)
    COHORT.helper(0).answer(replace(REQUEST, manifest=message), [])


def _set(content: bytes) -> None:
    COHORT.helper(0).answer(replace(REQUEST, cohort_set=_signed(b"s", COHORT.coordinator, content)), [])


def _seeds(content: bytes) -> None:
    seeds = _signed(b"b", key_of(DEVICE), content)
    with suppress(ProtocolError):
        admitted(COHORT.manifest, replace(UPDATE, seeds=seeds), DEVICE, COHORT.roster[DEVICE])
    COHORT.helper(0).unusable(replace(REQUEST, seeds=(seeds, *REQUEST.seeds[1:])))


def _answer(content: bytes) -> None:
    unmasked(COHORT.manifest, SET, COHORT.admitted, [_signed(b"a", key_of("helper-0"), content), ANSWERS[1]])


def _signature(content: bytes) -> None:
    COHORT.helper(0).answer(REQUEST, [_signed(b"q", key_of("helper-1"), content)])


def _request(data: bytes) -> None:
    COHORT.helper(0).answer(decode_payload(data, SumRequest), [])


def _update(data: bytes) -> None:
    admitted(COHORT.manifest, decode_payload(data, MaskedUpdate), DEVICE, COHORT.roster[DEVICE])


def _reply(data: bytes) -> None:
    asking = Asking(
        REQUEST.manifest,
        COHORT.manifest,
        COHORT.admitted,
        Terms(1.0, 2.0),
        sign_set=lambda cohort_set: signed(COHORT.coordinator, cohort_set),
        weight_of=lambda _: 1,
        ciphertext_of=lambda _: b"",
        fixed=(REQUEST.cohort_set, SET),
        now=0.0,
    )
    asking.receive(0, decode_payload(data, MaskReply))
    asking.advance(0.0)


def _masked_request(data: bytes) -> None:
    request = decode_payload(data, MaskRequest)
    COHORT.helper(0).answer(request.request, request.signatures)


def _ciphertext(data: bytes) -> None:
    unpack_ciphertext(data, 16)


def _key_file(content: bytes) -> None:
    file = encode_payload(_signed(b"e", key_of("helper-0"), content))
    assert len(read_encryption_key(file, key_of("helper-0").verify_key)) == len(NO_KEY)


READERS: tuple[Callable[[bytes], None], ...] = (
    _manifest,
    _set,
    _seeds,
    _answer,
    _signature,
    _request,
    _update,
    _reply,
    _masked_request,
    _ciphertext,
    _key_file,
)
NO_KEY = bytes(8 * PARTS * DEGREE)
"""A public key of zeros."""
MASKED = [
    bytes((number,)) + content
    for number, content in enumerate(
        (
            REQUEST.manifest.content,
            REQUEST.cohort_set.content,
            UPDATE.seeds.content,
            ANSWERS[0].content,
            COHORT.helper(0).sign(REQUEST).content,
            encode_payload(REQUEST),
            encode_payload(UPDATE),
            encode_payload(MaskReply("answer", message_hash(SET), signed=(ANSWERS[0],))),
            encode_payload(MaskRequest("answer", REQUEST)),
            bytes(ciphertext_bytes(16)),
            decode_payload(write_encryption_key(key_of("helper-0"), NO_KEY), Signed).content,
        )
    )
]


def check_masked(data: bytes) -> None:
    """The first byte says which message; each ends in a value or a refusal."""
    with suppress(ProtocolError, VoidCohortError):
        READERS[data[0] % len(READERS) if data else 0](data[1:])
