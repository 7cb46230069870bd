"""Authorities' certificates in a PEM file, which may hold several, and other lines between them."""

import hashlib
import re
import ssl
from collections.abc import Iterable, Sequence
from pathlib import Path

from fleet_protocol.errors import ConfigurationError, why_unreadable
from fleet_protocol.limits import MAX_AUTHORITIES, MAX_CERTIFICATE_BYTES

_PEM = re.compile("-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\\s]+-----END CERTIFICATE-----")
DAY_SECONDS = 86_400.0


def read_authorities(path: Path) -> list[bytes]:
    """The certificates in a file, in DER.

    Raises:
        ConfigurationError: it can't be read, or holds none, too many, or what is none.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigurationError(f"{path}: {why_unreadable(error, 'name the certificate of the authority')}") from error
    return parse_authorities(text, str(path))


def parse_authorities(text: str, name: str) -> list[bytes]:
    """The same of a text.

    Raises:
        ConfigurationError: as above.
    """
    try:
        found = [ssl.PEM_cert_to_DER_cert(block) for block in _PEM.findall(text)]
        check_authorities(found)
    except ValueError as error:
        raise ConfigurationError(f"{name}: no certificate in PEM ({error}); name the authority's") from error
    return found


def check_authorities(certificates: Sequence[bytes]) -> None:
    """Look whether TLS can use them.

    Raises:
        ValueError: there are none, too many, or what is no certificate.
    """
    if not 1 <= len(certificates) <= MAX_AUTHORITIES:
        raise ValueError(f"{len(certificates)} certificates; 1 to {MAX_AUTHORITIES} are expected")
    for certificate in certificates:
        if len(certificate) > MAX_CERTIFICATE_BYTES:
            raise ValueError(f"a certificate of {len(certificate)} bytes; at most {MAX_CERTIFICATE_BYTES} are taken")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cadata=certificate)
        except ssl.SSLError as error:
            raise ValueError(f"it is no certificate: {error.reason or error}") from error
        if not context.get_ca_certs():
            raise ValueError("it is the certificate of no authority")


def fingerprint(certificate: bytes) -> bytes:
    """SHA-256 of a certificate in DER, as invitations name it."""
    return hashlib.sha256(certificate).digest()


def write_authorities(certificates: Iterable[bytes]) -> str:
    """The text of such a file."""
    return "".join(map(ssl.DER_cert_to_PEM_cert, certificates))


def days_left(certificate: bytes, now: float) -> float:
    """How long an authority's certificate counts from `now`, in seconds since 1970."""
    return (_date(certificate, "notAfter") - now) / DAY_SECONDS


def counts(certificate: bytes, now: float) -> bool:
    """Whether an authority's certificate has begun to count and has not ended, at `now` in seconds since 1970."""
    return _date(certificate, "notBefore") <= now < _date(certificate, "notAfter")


def _date(certificate: bytes, which: str) -> float:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=certificate)
    (described,) = context.get_ca_certs()
    return ssl.cert_time_to_seconds(str(described[which]))
