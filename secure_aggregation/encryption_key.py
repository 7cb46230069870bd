"""A key holder's public key as a file of its own, which its mask key has signed. Pure.

So a device's owner trusts a mask key, as with every helper, and a bundle can't bring another encryption key for it.
"""

import numpy as np

from fleet_protocol.keys import SigningKey, VerifyKey
from fleet_protocol.kinds import Signed, decode_payload, encode_payload
from fleet_protocol.privacy.encryption_plan import DEGREE, PARTS
from secure_aggregation.ciphertexts import pack_ciphertext, unpack_ciphertext
from secure_aggregation.messages import EncryptionKey
from secure_aggregation.signatures import signed, verified


def write_encryption_key(key: SigningKey, public: bytes) -> bytes:
    """The file of a public key, residues of 8 bytes, by the mask key of its holder. The same arguments give the same
    bytes.
    """
    residues = np.frombuffer(public, "<u8").astype(np.uint64).reshape(1, PARTS, DEGREE)
    return encode_payload(signed(key, EncryptionKey(pack_ciphertext(residues))))


def read_encryption_key(file: bytes, holder: VerifyKey) -> bytes:
    """The public key in a file, residues of 8 bytes.

    Raises:
        ProtocolError: `BAD_SIGNATURE`: another mask key has signed it. `MALFORMED`, `WRONG_SHAPE`: it is no such file.
    """
    key = verified(decode_payload(file, Signed), EncryptionKey, holder, "the key holder that the task names")
    residues: bytes = unpack_ciphertext(key.public, 1).astype("<u8").tobytes()
    return residues
