"""Gets the authority's certificate from the broker itself, and trusts it for its fingerprint alone."""

import socket
import ssl
from typing import Any

from fleet_host.certificates import fingerprint
from fleet_protocol.errors import ConfigurationError

CONNECT_SECONDS = 15.0
"""Longest wait for the broker's answer."""


def download_authority(host: str, port: int, wanted: bytes) -> str:
    """The certificate, in PEM, that has this SHA-256; nothing else that the broker says is believed.

    Raises:
        OSError: the broker can't be reached.
        ConfigurationError: it shows no such certificate.
    """
    # Nothing is checked but the fingerprint, and nothing is sent: whoever answers, it has to show that certificate.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection((host, port), CONNECT_SECONDS) as connection,
        context.wrap_socket(connection, server_hostname=host) as secured,
    ):
        shown = _shown_chain(secured)
    for certificate in shown:
        if fingerprint(certificate) == wanted:
            return ssl.DER_cert_to_PEM_cert(certificate)
    raise ConfigurationError(
        f"{host}:{port} shows {len(shown)} certificates, and none has the fingerprint {wanted.hex()[:16]}... of"
        " the invitation: it is another broker, or its certificates were made anew; ask for a new invitation, and if"
        " that does not help, find out who answers at that address"
    )


def _shown_chain(secured: ssl.SSLSocket) -> list[bytes]:
    """The certificates, in DER, that the other side has sent."""
    if hasattr(secured, "get_unverified_chain"):  # Python 3.13
        return [bytes(each) for each in secured.get_unverified_chain()]
    inner: Any = secured._sslobj  # type: ignore[attr-defined]  # where 3.10 to 3.12 have it; so truststore does
    encoding: Any = ssl._ssl.ENCODING_DER  # type: ignore[attr-defined]
    return [each.public_bytes(encoding) for each in inner.get_unverified_chain()]
