"""A mask helper that is its cohort's key holder: it decrypts one ciphertext of each set, and tells it less its masks.

It does not see the single ciphertexts, so it can't check that it decrypts their sum. Other numbers in its place come
out masked, and tell no update. What is added to the sum comes out with it, and may tell the key: encryption is there
against coordinators that keep to the protocol, masks against all (docs/secure-aggregation.md). Pure.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fleet_protocol.errors import ProtocolError, Reason
from secure_aggregation.bit_packing import Words
from secure_aggregation.ciphertexts import Ciphertext, unpack_ciphertext
from secure_aggregation.helper.set_checks import CheckedSet
from secure_aggregation.manifest import field_of

Decrypt = Callable[[bytes, int], bytes]
"""The numbers in a ciphertext, both residues of 8 bytes, modulo two to the power of its second argument."""


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """`key` is the SHA-256 of its encryption key's file."""

    key: bytes
    decrypt: Decrypt


def is_to_decrypt(checked: CheckedSet, holder: KeyHolder | None) -> bool:
    """Whether this helper is the set's key holder.

    Raises:
        ProtocolError: `UNKNOWN_KEY`: it should be, and has another key or none.
    """
    if not checked.manifest.encryption_key or checked.number != checked.manifest.key_holder:
        return False
    if holder is None or holder.key != checked.manifest.encryption_key:
        has = f"its key is {holder.key[:8].hex()}" if holder else "it has no encryption key"
        raise ProtocolError(
            Reason.UNKNOWN_KEY,
            f"updates are encrypted under the key {checked.manifest.encryption_key[:8].hex()} of this helper, and"
            f" {has}; export the task again with what `edgeflock-helper encryption-key` writes there",
        )
    return True


def named_ciphertext(checked: CheckedSet, ciphertext: bytes) -> Ciphertext:
    """The one ciphertext that a set is spoken for with.

    Raises:
        ProtocolError: `WRONG_HASH`: it is another than the set names. Else as `unpack_ciphertext`.
    """
    if hashlib.sha256(ciphertext).digest() != checked.ciphertext:
        named = checked.ciphertext[:8].hex() or "none"
        raise ProtocolError(
            Reason.WRONG_HASH,
            f"{len(ciphertext)} bytes of ciphertext came with the set {checked.set_hash[:8].hex()}, and it names"
            f" {named}: send the sum that it was committed with",
        )
    return unpack_ciphertext(ciphertext, checked.manifest.entries)


def decrypted_sum(checked: CheckedSet, ciphertext: Ciphertext, holder: KeyHolder) -> Words:
    """What is in it, uint32[entries], modulo the cohort's modulus."""
    width = field_of(checked.manifest).width
    numbers = holder.decrypt(ciphertext.astype("<u8").tobytes(), width)
    return np.frombuffer(numbers, "<u8")[: checked.manifest.entries].astype(np.uint32)
