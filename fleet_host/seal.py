"""Microsoft SEAL, as TenSEAL binds it: keys, encryptions of zero, and decryption. Numbers go in and out as bytes.

TenSEAL is an extra (`edgeflock[homomorphic]`). Its bindings know files alone, which are in memory here, and open
/dev/urandom for each encryption: whoever is shut in encrypts before that. What others sent never comes to SEAL's reader
as it came: callers have checked each number, and what is around the numbers is written here.

All numbers are residues of 8 bytes, little endian; those of keys are in SEAL's NTT form.
"""

import os
import struct
from array import array
from importlib.util import find_spec
from typing import Any, Final

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.privacy.encryption_plan import DEGREE, MODULUS, PARTS

REMEDY: Final = "pip install 'edgeflock[homomorphic]' (in a checkout: pip install '.[homomorphic]')"
RESIDUE_BYTES: Final = 8
CIPHERTEXT_BYTES: Final = PARTS * DEGREE * RESIDUE_BYTES
"""Of one chunk, as it is in memory."""
_ANY_PLAIN_MODULUS: Final = 2
"""Neither keys nor encryptions of zero depend on it."""
_HEADER: Final = struct.Struct("<5sB2xQ")
"""SEAL's: magic, size and release in five bytes, 0 for no compression, and the length with these 16 bytes."""
_MAGIC_BYTES: Final = 5
_CIPHERTEXT: Final = struct.Struct("<4Q?QQQdQ")
"""Parameters, whether in NTT form, polynomials, degree, moduli, and two factors that BFV does not use."""
_PLAINTEXT: Final = struct.Struct("<4QQd")
_COUNT: Final = struct.Struct("<Q")


def is_missing() -> bool:
    """Whether TenSEAL is not installed; `REMEDY` says what brings it. Nothing is loaded."""
    return find_spec("tenseal") is None


def require_tenseal() -> None:
    """Load it.

    Raises:
        ConfigurationError: TenSEAL is not there, or does not load.
    """
    _Ring(_ANY_PLAIN_MODULUS)


def new_key() -> tuple[bytes, bytes]:
    """A secret key, DEGREE residues, and its public key, 2 DEGREE; from the system's randomness.

    Raises:
        ConfigurationError: TenSEAL is not there.
    """
    ring = _Ring(_ANY_PLAIN_MODULUS)
    generator, public = ring.seal.KeyGenerator(ring.context), ring.seal.PublicKey()
    secret = generator.secret_key()  # held: its numbers are freed with it
    generator.create_public_key(public)
    return _numbers(secret.data(), DEGREE), _numbers(public.data(), PARTS * DEGREE)


def encryptions_of_zero(public: bytes, count: int) -> bytes:
    """So many fresh ones under a public key, 2 DEGREE residues each; from the system's randomness.

    Raises:
        ConfigurationError: TenSEAL is not there.
    """
    ring = _Ring(_ANY_PLAIN_MODULUS)
    encryptor = ring.seal.Encryptor(ring.context, ring.public_key(public))
    made = []
    for _ in range(count):
        zero = ring.seal.Ciphertext()
        encryptor.encrypt_zero(zero)
        made.append(_numbers(zero, PARTS * DEGREE))
    return b"".join(made)


def decrypted(secret: bytes, ciphertext: bytes, width: int) -> bytes:
    """What is in the chunks of a ciphertext, modulo 2^width: DEGREE numbers of each.

    Raises:
        ConfigurationError: TenSEAL is not there.
    """
    ring = _Ring(1 << width)
    decryptor = ring.seal.Decryptor(ring.context, ring.secret_key(secret))
    found = []
    for at in range(0, len(ciphertext), CIPHERTEXT_BYTES):
        plain = ring.seal.Plaintext()
        decryptor.decrypt(ring.ciphertext(ciphertext[at : at + CIPHERTEXT_BYTES]), plain)
        count = plain.coeff_count()  # what is behind the last that is not zero is left out
        found.append(_numbers(plain, count).ljust(DEGREE * RESIDUE_BYTES, b"\0"))
    return b"".join(found)


class _Ring:
    """SEAL with the parameters of `encryption_plan`, and what it reads in them."""

    def __init__(self, plain_modulus: int) -> None:
        try:
            from tenseal import sealapi  # noqa: PLC0415 - an extra, and a second of processor time on a small device
        except ImportError as error:
            raise ConfigurationError(f"TenSEAL is not installed, or does not load ({error}): {REMEDY}") from error
        self.seal: Any = sealapi
        parameters = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.BFV)
        parameters.set_poly_modulus_degree(DEGREE)
        parameters.set_coeff_modulus([sealapi.Modulus(MODULUS)])
        parameters.set_plain_modulus(plain_modulus)
        self.context: Any = sealapi.SEALContext(parameters, True, sealapi.SEC_LEVEL_TYPE.TC128)
        self._magic = _saved(parameters)[:_MAGIC_BYTES]

    def public_key(self, numbers: bytes) -> Any:
        return self._loaded(self.seal.PublicKey(), self._around_ciphertext(is_ntt=True), numbers)

    def ciphertext(self, numbers: bytes) -> Any:
        return self._loaded(self.seal.Ciphertext(), self._around_ciphertext(is_ntt=False), numbers)

    def secret_key(self, numbers: bytes) -> Any:
        around = _PLAINTEXT.pack(*self.context.key_parms_id(), DEGREE, 1.0)
        return self._loaded(self.seal.SecretKey(), around, numbers)

    def _around_ciphertext(self, *, is_ntt: bool) -> bytes:
        return _CIPHERTEXT.pack(*self.context.key_parms_id(), is_ntt, PARTS, DEGREE, 1, 1.0, 1)

    def _loaded(self, empty: Any, around: bytes, numbers: bytes) -> Any:
        array_of_numbers = self._with_header(_COUNT.pack(len(numbers) // RESIDUE_BYTES) + numbers)
        with _MemoryFile(self._with_header(around + array_of_numbers)) as path:
            empty.load(self.context, path)
        return empty

    def _with_header(self, content: bytes) -> bytes:
        return _HEADER.pack(self._magic, 0, _HEADER.size + len(content)) + content


class _MemoryFile:
    """A file that is nowhere on a disk, by its path, for as long as the block takes."""

    def __init__(self, content: bytes = b"") -> None:
        self.descriptor = os.memfd_create("seal")
        os.write(self.descriptor, content)

    def __enter__(self) -> str:
        return f"/proc/self/fd/{self.descriptor}"

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


def _saved(source: Any) -> bytes:
    file = _MemoryFile()
    with file as path:
        source.save(path)
        return os.pread(file.descriptor, os.fstat(file.descriptor).st_size, 0)


def _numbers(source: Any, count: int) -> bytes:
    return array("Q", (source[at] for at in range(count))).tobytes()
