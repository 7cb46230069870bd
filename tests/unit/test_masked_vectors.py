"""tests/vectors/masked_cohort.json, both ways: what we write, and what another implementation makes of the bytes.

The second one is written from the words of docs/secure-aggregation.md: ChaCha20, ChaCha20-Poly1305, X25519 and Ed25519
of the package cryptography, numbers as Python's integers.
"""

import hashlib
import json
from pathlib import Path

import cbor2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from nacl.signing import SigningKey

from tests.vectors.masked_cohort import masked_vectors

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "masked_cohort.json").read_text())
BY_NAME = {vector["name"]: vector for vector in VECTORS}
ENTRIES, WIDTH = 5, 14
"""127 levels times a total weight of 40, and a sign."""


def message(name):
    return cbor2.loads(bytes.fromhex(BY_NAME[name]["hex"]))


def numbers(packed):
    whole = int.from_bytes(packed, "little")
    return [whole >> WIDTH * at & (1 << WIDTH) - 1 for at in range(ENTRIES)]


def opened(box, ephemeral, helper, place):
    """The one seed in the box for a helper of the simple mode."""
    secret = hashlib.sha512(bytes.fromhex(BY_NAME[f"answer of helper {helper}"]["signing_seed"])).digest()[:32]
    own = X25519PrivateKey.from_private_bytes(secret)
    shared = own.exchange(X25519PublicKey.from_public_bytes(ephemeral))
    public = ephemeral + own.public_key().public_bytes_raw()
    key = hashlib.blake2b(public, key=shared, person=b"edgeflock/mask/x", digest_size=32).digest()
    return ChaCha20Poly1305(key).decrypt(bytes(12), box, bytes([helper]) + place)


def mask_of(seed, number, place):
    key = hashlib.blake2b(bytes([number]) + place, key=seed, person=b"edgeflock/mask/k", digest_size=32).digest()
    stream = Cipher(ChaCha20(key, bytes(4) + b"LibsodiumDRG"), mode=None).encryptor().update(bytes(4 * ENTRIES))
    return [int.from_bytes(stream[at : at + 4], "little") for at in range(0, len(stream), 4)]


def test_vectors_are_those_that_the_writer_writes():
    assert json.loads(json.dumps(masked_vectors())) == VECTORS


def test_signatures_verify_by_another_implementation():
    for name, use in (("manifest", b"m"), ("signature of helper 0", b"q"), ("answer of helper 2", b"a")):
        content, signature = message(name)
        public = bytes(SigningKey(bytes.fromhex(BY_NAME[name]["signing_seed"])).verify_key)
        Ed25519PublicKey.from_public_bytes(public).verify(signature, b"edgeflock/mask/" + use + content)
    assert hashlib.sha256(message("manifest")[0]).hexdigest() == BY_NAME["manifest"]["cohort"]


def test_masks_come_off_and_sums_come_out_by_another_implementation():
    sums = [[0] * ENTRIES for _ in range(3)]
    for device in ("attic-pi", "kitchen-pi"):
        (content, _), values = message(f"masked update of {device}")
        cohort, name, sequence, _, ephemeral, boxes = cbor2.loads(content)
        place = cbor2.dumps([cohort, name, sequence])
        # In the simple mode helper h alone holds the one seed that the two others lack: number 2 - h.
        masks = [mask_of(opened(boxes[helper], ephemeral, helper, place), 2 - helper, place) for helper in range(3)]
        plain = [(sent - sum(own)) % (1 << WIDTH) for sent, *own in zip(numbers(values), *masks, strict=True)]
        assert plain == [level % (1 << WIDTH) for level in BY_NAME[f"masked update of {device}"]["levels"]]
        for helper, own in enumerate(masks):
            sums[helper] = [(total + 2 * one) % (1 << WIDTH) for total, one in zip(sums[helper], own, strict=True)]
    for helper in range(3):
        *_, (packed,) = cbor2.loads(message(f"answer of helper {helper}")[0])
        assert numbers(packed) == sums[helper]
    plain = [BY_NAME[f"masked update of {device}"]["levels"] for device in ("attic-pi", "kitchen-pi")]
    assert BY_NAME["sum"]["levels"] == [2 * first + 2 * second for first, second in zip(*plain, strict=True)]
