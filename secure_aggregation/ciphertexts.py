"""Updates' residues in ciphertexts that are added without their key (`fleet_protocol.privacy.encryption_plan`). Pure.

A ciphertext here is uint64[chunks, 2, DEGREE], of residues below MODULUS. Packed, it is the lowest 32 bits of each, and
behind those of all the upper 19, as `bit_packing` has them. So what comes from others is read without SEAL.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.privacy.encryption_plan import DEGREE, MODULUS, MODULUS_BITS, PARTS, chunks_of, ciphertext_bytes
from secure_aggregation.bit_packing import Words, pack, unpack

Ciphertext = NDArray[np.uint64]

LOWER_BITS: Final = 32
UPPER_BITS: Final = MODULUS_BITS - LOWER_BITS
LARGEST_FACTOR: Final = (1 << 64 - MODULUS_BITS) - 1
"""So many residues have a sum of 64 bits."""


def pack_ciphertext(ciphertext: Ciphertext) -> bytes:
    """Its bytes, as they travel."""
    residues = ciphertext.reshape(-1)
    lower = (residues & np.uint64(0xFFFFFFFF)).astype("<u4").tobytes()
    return lower + pack((residues >> np.uint64(LOWER_BITS)).astype(np.uint32), UPPER_BITS)


def unpack_ciphertext(data: bytes, entries: int) -> Ciphertext:
    """What `pack_ciphertext` wrote of so many entries.

    Raises:
        ProtocolError: `WRONG_SHAPE`: another number of bytes. `MALFORMED`: a residue beyond the modulus.
    """
    if len(data) != (expected := ciphertext_bytes(entries)):
        raise ProtocolError(
            Reason.WRONG_SHAPE, f"{len(data)} bytes for {entries} encrypted entries, which take {expected}"
        )
    count = chunks_of(entries) * PARTS * DEGREE
    lower = np.frombuffer(data, "<u4", count).astype(np.uint64)
    upper = unpack(data[count * LOWER_BITS // 8 :], count, UPPER_BITS).astype(np.uint64)
    residues: Ciphertext = upper << np.uint64(LOWER_BITS) | lower
    if int(residues.max()) >= MODULUS:
        at = int(np.argmax(residues))
        raise ProtocolError(
            Reason.MALFORMED, f"residue {at} of the ciphertext is {residues[at]}; all are below the modulus {MODULUS}"
        )
    return residues.reshape(-1, PARTS, DEGREE)


def encrypted(zeros: bytes, residues: Words, width: int) -> bytes:
    """The packed ciphertext of uint32[K] modulo 2^width. `zeros` are fresh encryptions of zero, as many as K takes, in
    residues of 8 bytes; used for nothing else.

    Raises:
        ProtocolError: `WRONG_SHAPE`: others than K takes.
    """
    made: Ciphertext = np.frombuffer(zeros, "<u8").astype(np.uint64)
    if made.size != chunks_of(residues.size) * PARTS * DEGREE:
        raise ProtocolError(
            Reason.WRONG_SHAPE,
            f"{made.size} residues of encryptions of zero for {residues.size} entries, which take"
            f" {chunks_of(residues.size) * PARTS * DEGREE}",
        )
    made = made.reshape(-1, PARTS, DEGREE)
    plain = np.zeros(made.shape[0] * DEGREE, np.uint64)
    plain[: residues.size] = residues & np.uint32((1 << width) - 1)
    made[:, 0] = (made[:, 0] + _scaled(plain, width).reshape(-1, DEGREE)) % np.uint64(MODULUS)
    return pack_ciphertext(made)


def add_weighted(total: Ciphertext | None, ciphertext: Ciphertext, weight: int) -> Ciphertext:
    """The sum of `total`, None at first, and a ciphertext times a weight, which is `LARGEST_FACTOR` at most."""
    weighted = ciphertext * np.uint64(weight)
    return (weighted if total is None else weighted + total) % np.uint64(MODULUS)


def _scaled(plain: NDArray[np.uint64], width: int) -> NDArray[np.uint64]:
    """m MODULUS / 2^width, rounded, of each m below 2^width: at most 32 bits, so that no product has more than 64."""
    whole, rest = divmod(MODULUS, 1 << width)
    half = np.uint64(1 << width - 1)
    return plain * np.uint64(whole) + (plain * np.uint64(rest) + half >> np.uint64(width))
