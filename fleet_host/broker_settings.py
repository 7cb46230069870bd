"""The broker's address, and the password and TLS files of the connection: the table `[broker]`."""

import ssl
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from fleet_protocol.configuration import one_line
from fleet_protocol.errors import ConfigurationError, why_unreadable

MAX_PORT = 65535
"""TCP has no higher one."""

MAX_CREDENTIAL_BYTES = 65535
"""MQTT has two bytes for the length of a username, and of a password. In UTF-8 a character
has at most four."""

MAX_SPACE_BYTES = 1024
"""Around a password in its file; what exceeds it is no password, and is not read further."""

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"

HOST_FORM = "a host name such as broker.example, or an IP address, without scheme, port or brackets"
Host = Annotated[
    str,
    msgspec.Meta(
        pattern=rf"^(?=.{{1,253}}\Z)(({_LABEL})(\.{_LABEL})*\.?|[0-9A-Fa-f]*:[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?)\Z",
        description=HOST_FORM,
    ),
]
"""What the resolver takes: for others Python raises what no caller expects."""


class TlsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files for TLS. `certificate` and `key` are left out where the broker asks for a password instead."""

    authority: Path
    """Certificate of the authority that signed the broker's."""
    certificate: Path | None = None
    """The client's own certificate."""
    key: Path | None = None
    """The private key of `certificate`."""


class BrokerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The MQTT broker."""

    host: Host
    """Name or address; with TLS, one that is in the broker's certificate."""
    port: Annotated[int, msgspec.Meta(ge=1, le=MAX_PORT)] = 1883
    """TCP port; with TLS usually 8883."""
    protocol: Literal["5", "3.1.1"] = "5"
    """Version of MQTT. Nothing relies on 5."""
    keepalive_seconds: Annotated[int, msgspec.Meta(ge=5, le=3600)] = 60
    """In seconds: an idle connection sends a ping this often."""
    username: Annotated[str, one_line(MAX_CREDENTIAL_BYTES // 4)] | None = None
    """For brokers that ask for a password."""
    password_file: Path | None = None
    """A file that holds the password and nothing else."""
    tls: TlsSettings | None = None

    def password(self) -> str | None:
        """The content of `password_file`; None without one.

        Raises:
            ConfigurationError: it can't be read, or is no password.
        """
        return read_password(self.password_file, "broker.password_file")

    def tls_context(self) -> ssl.SSLContext | None:
        """A context that verifies the broker's certificate, and presents a client's if given; None without TLS.

        Raises:
            ConfigurationError: a file can't be used.
        """
        if self.tls is None:
            return None
        if self.tls.key is not None and self.tls.certificate is None:
            raise ConfigurationError(f"broker.tls: key {self.tls.key} without certificate; name its certificate too")
        try:
            context = ssl.create_default_context(cafile=self.tls.authority)
            if self.tls.certificate is not None:
                context.load_cert_chain(self.tls.certificate, self.tls.key, password=_no_passphrase)
        except (OSError, ValueError) as error:
            files = ", ".join(str(file) for file in msgspec.structs.astuple(self.tls) if file is not None)
            raise ConfigurationError(
                f"broker.tls: {error}; check that `key` belongs to `certificate`, and that each is there and is PEM:"
                f" {files}"
            ) from error
        return context


def _no_passphrase() -> str:
    """OpenSSL would ask for it at the terminal."""
    raise ConfigurationError("broker.tls: key is protected by a passphrase; take it off with: openssl pkey -in FILE")


def read_password(file: Path | None, key: str) -> str | None:
    """The password in a file that the configuration names under `key`; None without a file.

    Raises:
        ConfigurationError: the file can't be read, or holds something else.
    """
    if file is None:
        return None
    try:
        with file.open("rb") as opened:
            password = opened.read(MAX_CREDENTIAL_BYTES + MAX_SPACE_BYTES).decode().strip()
    except OSError as error:
        raise ConfigurationError(f"{key} {file}: {why_unreadable(error, 'make it, or take the key out')}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{key} {file}: not a text in UTF-8: {error}; write the password into it") from error
    if "\0" in password or (size := len(password.encode())) > MAX_CREDENTIAL_BYTES:
        found = "holds a NUL character" if "\0" in password else f"{size} bytes exceed {MAX_CREDENTIAL_BYTES}"
        raise ConfigurationError(f"{key} {file}: {found}; write the password into it, and nothing else")
    return password
