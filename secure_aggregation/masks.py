"""Masks from seeds: ChaCha20 (RFC 8439) of libsodium. Pure.

PyNaCl has no binding of the bare stream cipher. It has `randombytes_buf_deterministic`, whose output libsodium's
manual defines as the ChaCha20 key stream of the seed for the nonce "LibsodiumDRG", from block 0; a test compares it
with a second implementation. The key of each mask is used once, so one nonce does.
"""

import hashlib
from typing import Final

import numpy as np
from nacl.bindings import randombytes_buf_deterministic

from fleet_protocol import cbor
from secure_aggregation.bit_packing import Words

_WORD_BYTES: Final = 4
_KEY_BYTES: Final = 32
_MASK_USE: Final = b"edgeflock/mask/k"


def update_place(cohort: bytes, device: str, sequence: int) -> bytes:
    """Which update something is of, as bytes that no other update has; boxes and masks are bound to it."""
    return cbor.encode_plain([cohort, device, sequence])


def mask(seed: bytes, place: bytes, number: int, entries: int) -> Words:
    """The mask of seed `number` of the update at `place`: uint32[entries].

    The cipher's key is keyed BLAKE2b (RFC 7693) of place and number under the seed's 16 bytes, so that whoever guesses
    seeds has to guess for one device at a time.
    """
    key = hashlib.blake2b(bytes((number,)) + place, key=seed, person=_MASK_USE, digest_size=_KEY_BYTES).digest()
    return key_stream(key, entries)


def key_stream(key: bytes, words: int) -> Words:
    """The first `words` words, little endian, of the ChaCha20 key stream under a key of 32 bytes; uint32."""
    return np.frombuffer(randombytes_buf_deterministic(_WORD_BYTES * words, key), "<u4")
