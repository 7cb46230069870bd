"""How a set of authorities for certificates is named, whatever order it is in."""

import hashlib
from collections.abc import Iterable

ID_BYTES = 8


def authorities_id(certificates: Iterable[bytes]) -> bytes:
    """The first 8 bytes of the SHA-256 over the sorted SHA-256 of the certificates, each in DER."""
    hashes = sorted({hashlib.sha256(certificate).digest() for certificate in certificates})
    return hashlib.sha256(b"".join(hashes)).digest()[:ID_BYTES]
