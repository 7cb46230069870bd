"""Sums of encrypted updates: the ring of the ciphertexts, how long they are, and which sums decrypt exactly. Pure.

BFV (Fan & Vercauteren 2012) on polynomials of `DEGREE` coefficients modulo x^DEGREE + 1 and `MODULUS`, whose plaintexts
are whole numbers modulo a power of two. Degree and 51 bits of modulus are 128 bits of security with ternary secrets,
also against quantum computers (Albrecht et al. 2018, Homomorphic Encryption Standard, tables 1 and 2).

An encryption of zero under a public key (-(a s + e), a) is (-(a s + e) u + e1, a u + e2). Whoever has s is left with
-e u + e1 + e2 s of it, which is `LARGEST_NOISE` at most: coefficients of u and s are -1, 0 or 1, and those of e, e1 and
e2 are at most 21 with SEAL's centred binomial distribution. A plaintext m adds m MODULUS / 2^width, rounded: half more.
So a sum of total weight W decrypts to the sum of the plaintexts itself while W LARGEST_NOISE < MODULUS / 2^(width + 1).
"""

from typing import TYPE_CHECKING, Final

from fleet_protocol.bundle_files import KEY_HOLDER_FILE
from fleet_protocol.limits import MAX_COHORT_MANIFEST_BYTES, MAX_MASK_REQUEST_BYTES

if TYPE_CHECKING:
    from fleet_protocol.privacy.mask_plan import MaskPlan
    from fleet_protocol.task_description import TaskDescription

DEGREE: Final = 2048
MODULUS_BITS: Final = 51
MODULUS: Final = 2251799813640193
"""The largest prime of 51 bits that is 1 modulo 2 DEGREE."""
LARGEST_NOISE: Final = 21 * (2 * DEGREE + 1) + 1
PARTS: Final = 2
"""Polynomials of a ciphertext."""
MEMBER_BYTES: Final = 640
"""Of a question to a helper, for each device of the set: at most, its name and sealed seeds, with signatures."""
BESIDE_BYTES: Final = MAX_COHORT_MANIFEST_BYTES + 2048
"""Of the same, that are neither devices' nor ciphertext: manifest, envelope and signatures."""


def chunks_of(entries: int) -> int:
    """How many ciphertexts so many entries take."""
    return -(-entries // DEGREE)


def ciphertext_bytes(entries: int) -> int:
    """What encrypted entries take, packed."""
    return chunks_of(entries) * PARTS * DEGREE * MODULUS_BITS // 8


def decrypts_exactly(width: int, total_weight: int) -> bool:
    """Whether a sum of ciphertexts of this total weight, modulo 2^width, decrypts to the sum of what is in them."""
    return total_weight * LARGEST_NOISE << width + 1 < MODULUS


def rules_of_encryption(
    plan: "MaskPlan", key_holder: str, task: "TaskDescription", largest_weight: int
) -> list[tuple[bool, str]]:
    """What must hold of a task with a key holder, whose updates weigh so much at most, and what is said where it does
    not.
    """
    devices = task.aggregation.buffer_size or 0
    total_weight = devices * largest_weight
    sent = ciphertext_bytes(plan.entries(task.trained_count))
    asked = sent + devices * MEMBER_BYTES + BESIDE_BYTES
    return [
        (
            key_holder in plan.helpers,
            f"has key_holder {key_holder!r}, who is none of the helpers {sorted(plan.helpers)}; write one of them",
        ),
        (
            KEY_HOLDER_FILE in task.files,
            f"has key_holder {key_holder!r}, and the bundle no {KEY_HOLDER_FILE}; export it again",
        ),
        (
            plan.colluding == len(plan.helpers) - 1,
            f"has a key holder, with which all helpers must answer; write colluding = {len(plan.helpers) - 1}, one"
            " below their number",
        ),
        (
            decrypts_exactly(plan.width(total_weight), total_weight),
            f"has a key holder, and sums of {plan.width(total_weight)} bits of a total weight of {total_weight} don't"
            " decrypt exactly; lower bits or aggregation.buffer_size",
        ),
        (
            asked <= MAX_MASK_REQUEST_BYTES,
            f"makes questions of {asked} bytes to the key holder, {sent} of them the encrypted sum, and at most"
            f" {MAX_MASK_REQUEST_BYTES} travel; lower keep_fraction or aggregation.buffer_size, or leave key_holder"
            " out",
        ),
    ]
