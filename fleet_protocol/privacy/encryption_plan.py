"""Sums of encrypted updates: the ring of the ciphertexts, how long they are, and which sums decrypt exactly. Pure.

BFV (Fan & Vercauteren 2012) on polynomials of `DEGREE` coefficients modulo x^DEGREE + 1 and `MODULUS`, whose plaintexts
are whole numbers modulo a power of two. Degree and 51 bits of modulus are 128 bits of security with ternary secrets,
also against quantum computers (Albrecht et al. 2018, Homomorphic Encryption Standard, tables 1 and 2).

An encryption of zero under a public key (-(a s + e), a) is (-(a s + e) u + e1, a u + e2). Whoever has s is left with
-e u + e1 + e2 s of it, which is `LARGEST_NOISE` at most: coefficients of u and s are -1, 0 or 1, and those of e, e1 and
e2 are at most 21 with SEAL's centred binomial distribution. A plaintext m adds m MODULUS / 2^width, rounded: half more.
So a sum of total weight W decrypts to the sum of the plaintexts itself while W LARGEST_NOISE < MODULUS / 2^(width + 1).
"""

from typing import Final

DEGREE: Final = 2048
MODULUS_BITS: Final = 51
MODULUS: Final = 2251799813640193
"""The largest prime of 51 bits that is 1 modulo 2 DEGREE."""
LARGEST_NOISE: Final = 21 * (2 * DEGREE + 1) + 1
PARTS: Final = 2
"""Polynomials of a ciphertext."""


def chunks_of(entries: int) -> int:
    """How many ciphertexts so many entries take."""
    return -(-entries // DEGREE)


def ciphertext_bytes(entries: int) -> int:
    """What encrypted entries take, packed."""
    return chunks_of(entries) * PARTS * DEGREE * MODULUS_BITS // 8


def decrypts_exactly(width: int, total_weight: int) -> bool:
    """Whether a sum of ciphertexts of this total weight, modulo 2^width, decrypts to the sum of what is in them."""
    return total_weight * LARGEST_NOISE << width + 1 < MODULUS
