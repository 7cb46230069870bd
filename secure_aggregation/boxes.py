"""Seeds in boxes that one helper opens, for one update of one device alone. Pure.

libsodium's sealed boxes bind their content to nothing but its receiver. So a box is: X25519 (RFC 7748) between the
helper's key and an ephemeral one of the device, a key by keyed BLAKE2b of both public keys, and ChaCha20-Poly1305
(RFC 8439), whose associated data are the cohort, the device, its sequence number and the helper's number. The boxes of
one update share the ephemeral key, and no two of them a key.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_decrypt,
    crypto_aead_chacha20poly1305_ietf_encrypt,
    crypto_scalarmult,
    crypto_scalarmult_base,
    crypto_sign_ed25519_pk_to_curve25519,
    crypto_sign_ed25519_sk_to_curve25519,
)
from nacl.exceptions import CryptoError
from nacl.exceptions import RuntimeError as NaClRuntimeError

from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import SigningKey
from secure_aggregation.messages import SEED_BYTES
from secure_aggregation.seed_plan import SeedPlan

EPHEMERAL_BYTES: Final = 32
BOX_OVERHEAD_BYTES: Final = 16
"""Poly1305's tag."""
_KEY_BYTES: Final = 32
_BOX_USE: Final = b"edgeflock/mask/x"
_NONCE: Final = bytes(12)
"""A box's key encrypts that box and nothing else."""


def sealed_seeds(
    seeds: Sequence[bytes], plan: SeedPlan, helpers: Sequence[bytes], place: bytes, ephemeral_secret: bytes
) -> tuple[bytes, tuple[bytes, ...]]:
    """The ephemeral public key, and a box for each helper with the seeds that the plan gives it.

    `ephemeral_secret` is 32 random bytes, used for this update alone; `helpers` are Ed25519 public keys.

    Raises:
        ProtocolError: `MALFORMED`: a helper's key is no point of the curve.
    """
    ephemeral = crypto_scalarmult_base(ephemeral_secret)
    return ephemeral, tuple(
        _sealed(b"".join(seeds[held] for held in plan.held_by(number)), helper, ephemeral, ephemeral_secret,
                _bound(place, number))
        for number, helper in enumerate(helpers)
    )  # fmt: skip


def _sealed(content: bytes, helper: bytes, ephemeral: bytes, ephemeral_secret: bytes, bound: bytes) -> bytes:
    try:
        curve = crypto_sign_ed25519_pk_to_curve25519(helper)
        shared = crypto_scalarmult(ephemeral_secret, curve)
    except (NaClRuntimeError, CryptoError) as error:
        raise ProtocolError(
            Reason.MALFORMED,
            f"mask helper's key {helper.hex()} is no valid Ed25519 public key; correct the task's list",
        ) from error
    return crypto_aead_chacha20poly1305_ietf_encrypt(content, bound, _NONCE, _box_key(shared, ephemeral, curve))


def opened_seeds(
    box: bytes, ephemeral: bytes, *, plan: SeedPlan, number: int, key: SigningKey, place: bytes
) -> tuple[bytes, ...]:
    """The seeds in the box for helper `number`, whose key this is, in the order of `plan.held_by`.

    Raises:
        ProtocolError: `MALFORMED`: it doesn't open: altered, or for another helper or update.
    """
    expected = BOX_OVERHEAD_BYTES + SEED_BYTES * len(plan.held_by(number))
    if len(box) != expected:
        raise ProtocolError(Reason.MALFORMED, f"box {number} has {len(box)} bytes; with its seeds it has {expected}")
    secret = crypto_sign_ed25519_sk_to_curve25519(bytes(key) + bytes(key.verify_key))
    try:
        shared = crypto_scalarmult(secret, ephemeral)
        box_key = _box_key(shared, ephemeral, crypto_scalarmult_base(secret))
        content = crypto_aead_chacha20poly1305_ietf_decrypt(box, _bound(place, number), _NONCE, box_key)
    except (NaClRuntimeError, CryptoError) as error:
        raise ProtocolError(
            Reason.MALFORMED,
            f"box {number} does not open: it was altered, or is for another helper, device, cohort or sequence number",
        ) from error
    return tuple(content[at : at + SEED_BYTES] for at in range(0, len(content), SEED_BYTES))


def _box_key(shared: bytes, ephemeral: bytes, helper: bytes) -> bytes:
    return hashlib.blake2b(ephemeral + helper, key=shared, person=_BOX_USE, digest_size=_KEY_BYTES).digest()


def _bound(place: bytes, number: int) -> bytes:
    return bytes((number,)) + place
