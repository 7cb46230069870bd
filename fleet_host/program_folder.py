"""The folder in /etc of a program: its configuration, key and certificates, owned by the account that runs it."""

import json
import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fleet_host.key_files import make_key_file, read_key_ring_file
from fleet_host.new_files import remedy_for, write_new_file
from fleet_protocol.errors import ConfigurationError, why_unreadable
from fleet_protocol.keys import VerifyKey

FOLDER_MODE = 0o700
FILE_MODE = 0o400
AUTHORITY = "ca.crt"
PASSWORD_FILE = "broker.password"  # noqa: S105 - the name of a file
PLAIN_PORT = 1883
TLS_PORT = 8883

BROKER = """\
[broker]
host = {host}
port = {port}
"""
TLS = """
[broker.tls]
authority = "{authority}"
certificate = "{name}.crt"
key = "{name}-tls.key"
"""


def quoted(text: str) -> str:
    """As a string of TOML, whatever is in it: one of JSON is one of TOML."""
    return json.dumps(text)


@dataclass(frozen=True, slots=True)
class BrokerAnswers:
    """Where the broker is, and the folder that systemd/mosquitto/certificates.sh wrote; None: no TLS."""

    host: str
    port: int | None
    certificates: Path | None

    def table(self, name: str) -> str:
        """The table `[broker]` of a configuration file beside which the certificate is called `name`."""
        host = quoted(self.host)
        if self.certificates is None:
            return BROKER.format(host=host, port=self.port or PLAIN_PORT)
        return BROKER.format(host=host, port=self.port or TLS_PORT) + TLS.format(authority=AUTHORITY, name=name)

    def copies(self, name: str, common_name: str) -> dict[str, Path]:
        """What belongs beside that file, and where it comes from."""
        if self.certificates is None:
            return {}
        return {
            AUTHORITY: self.certificates / AUTHORITY,
            f"{name}.crt": self.certificates / f"{common_name}.crt",
            f"{name}-tls.key": self.certificates / f"{common_name}.key",
        }


def make_program_folder(
    configuration: Path, text: str, key_file: str, copies: Mapping[str, Path], program: str
) -> VerifyKey:
    """Write `configuration` with `text`, copies of files beside it (name to file), and the key if there is none.

    All of it belongs to the account named `program` where root does this and there is one. Returns the public key.

    Raises:
        ConfigurationError: the configuration exists, a file can't be read, or nothing can be written there.
    """
    folder = configuration.parent
    if configuration.exists():
        raise ConfigurationError(f"{configuration} exists and stays as it is; edit it, or remove it first")
    contents = {name: _read(source) for name, source in copies.items()}
    try:
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        key = folder / key_file
        public = read_key_ring_file(key, program)[0].verify_key if key.exists() else make_key_file(key, program)
        for name, content in contents.items():
            _write(folder / name, content)
        _write(configuration, text.encode())
        give_to(program, folder, key, configuration, *(folder / name for name in contents))
    except OSError as error:
        other = "run it with sudo" if isinstance(error, PermissionError) else "name another folder with --config"
        remedy = remedy_for(error, other)
        raise ConfigurationError(f"{error.filename or folder}: {error.strerror}; {remedy}") from error
    return public


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        remedy = "systemd/mosquitto/certificates.sh makes it; --certificates names its folder"
        raise ConfigurationError(f"{path}: {why_unreadable(error, remedy)}") from error


def _write(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    write_new_file(path, content, FILE_MODE)


def give_to(account: str, *paths: Path) -> None:
    """Let files and folders belong to an account, where root does this and there is one."""
    try:
        owner = pwd.getpwnam(account)
    except KeyError:
        return
    if os.geteuid() == 0:
        for path in paths:  # of which the account may put a link in the place of any, once it has the folder
            os.chown(path, owner.pw_uid, owner.pw_gid, follow_symlinks=False)
