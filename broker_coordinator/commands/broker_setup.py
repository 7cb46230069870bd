"""Mosquitto's part of `broker-coordinator setup --host`: certificates, configuration, and the first account."""

import os
import secrets
import shutil
import socket
import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from broker_coordinator.commands.certificates import is_for, lasts, make_authority, make_broker_certificate
from broker_coordinator.distribution.dynamic_security import initial_rules
from fleet_host.new_files import remedy_for, replace_file, write_new_file
from fleet_host.program_folder import AUTHORITY, FILE_MODE, FOLDER_MODE, give_to
from fleet_host.services import shipped_file
from fleet_protocol.errors import ConfigurationError, why_unreadable

ACCOUNT = "mosquitto"
"""Made by Debian's package."""
PROGRAM_FOLDERS = "/usr/sbin:/usr/local/sbin"
"""Where Mosquitto is, and not on everybody's PATH."""
PLUGIN = "mosquitto_dynamic_security.so"
LIBRARY_FOLDERS = (Path("/usr/lib"), Path("/usr/local/lib"))
BROKER_FILES = ("broker.crt", "broker.key")
RULES = "dynamic-security.json"
OWNER_WRITES = 0o600
CERTIFICATE_MODE = 0o444
SALT_BYTES = 12
PASSWORD_BYTES = 32


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that setup does, in words; `do` is None where it is done already."""

    words: str
    do: Callable[[], None] | None


@dataclass(frozen=True, slots=True)
class BrokerPlan:
    """A broker of our own: the name that devices know it by, and where its files are."""

    host: str
    port: int
    folder: Path
    state: Path
    authority: Path
    """Folder of the authority: its private key stays there."""
    given: Path | None
    """A folder with ca.crt, broker.crt and broker.key that somebody else has made."""

    @property
    def configuration(self) -> Path:
        """Mosquitto's."""
        return self.folder / "mosquitto.conf"

    @property
    def certificates(self) -> Path:
        """The folder that ca.crt, broker.crt and broker.key come from."""
        return self.given or self.authority

    def check(self) -> None:
        """Look at everything that could stand in the way, before anything is written.

        Raises:
            ConfigurationError: what, and what to do.
        """
        for program in ("mosquitto", "openssl"):
            if shutil.which(program, path=os.environ.get("PATH", "") + ":" + PROGRAM_FOLDERS) is None:
                raise ConfigurationError(f"{program} is not installed: apt install {program}")
        _plugin()
        if self.given is not None:
            for name in (AUTHORITY, *BROKER_FILES):
                _read(self.given / name)
        if not self.configuration.exists():
            _require_free(self.port)
        elif str(self.state / RULES) not in self.configuration.read_text(encoding="utf-8"):
            raise ConfigurationError(
                f"{self.configuration} is of another setup, without accounts that the coordinator makes; move"
                f" {self.folder} away, and run this again: its devices then have to join"
            )

    def steps(self, password_file: Path) -> list[Step]:
        """What there is to do, in order; `password_file` is the coordinator's."""
        rules = self.state / RULES
        if rules.exists() and not password_file.exists():
            raise ConfigurationError(
                f"{rules} is there, and the password that belongs to it ({password_file}) is not; restore that file, or"
                f" remove {rules}: the coordinator then makes every account again"
            )
        return [
            *self.certificate_steps(),
            Step(
                f"write {self.configuration} (TLS on port {self.port}, accounts, limits)",
                None if self.configuration.exists() else self._configure,
            ),
            Step(
                f"make the coordinator's account at the broker in {rules}",
                None if rules.exists() else lambda: self._make_account(rules, password_file),
            ),
        ]

    def certificate_steps(self) -> list[Step]:
        """What there is to do about certificates, in order."""
        if self.given is None and self._authority_is_elsewhere():
            return [Step(f"the broker's certificate for {self.host}", None)]
        made = [] if self.given is not None else self._issuing_steps()
        installed = not any(step.do for step in made) and self._is_installed()
        words = f"install the broker's certificate in {self.folder}"
        return [*made, Step(words, None if installed else self._install)]

    def _authority_is_elsewhere(self) -> bool:
        """Whether the authority's key is not here, which the broker's certificate does not need for now.

        Raises:
            ConfigurationError: it needs it.
        """
        shown = self.folder / "broker.crt"
        if (self.authority / "ca.key").exists() or not shown.exists():
            return False
        if not (is_for(shown, self.host) and lasts(shown)):
            raise ConfigurationError(
                f"{self.authority / 'ca.key'}: missing, and the broker needs another certificate; put {self.authority}"
                " back from a backup, or let another authority follow it: broker-coordinator authority renew"
            )
        return True

    def _issuing_steps(self) -> list[Step]:
        has_authority = (self.authority / "ca.key").exists()
        certificate = self.authority / "broker.crt"
        is_right = certificate.exists() and is_for(certificate, self.host) and lasts(certificate)
        return [
            Step(
                f"make an authority for certificates in {self.authority}",
                None if has_authority else lambda: make_authority(self.authority),
            ),
            Step(
                f"make the broker's certificate for {self.host}",
                None if is_right else lambda: make_broker_certificate(self.authority, self.host),
            ),
        ]

    def _chain(self) -> bytes:
        """The broker's certificate, and the authority's behind it: a device that joins has its fingerprint alone."""
        authority = _read(self.certificates / AUTHORITY)
        chain = _read(self.certificates / "broker.crt").rstrip(b"\n") + b"\n"
        return chain if authority.strip() in chain else chain + authority

    def _is_installed(self) -> bool:
        shown, key = (self.folder / name for name in BROKER_FILES)
        if not (shown.exists() and key.exists()):
            return False
        return shown.read_bytes() == self._chain() and key.read_bytes() == _read(self.certificates / key.name)

    def _install(self) -> None:
        self.folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        replace_file(self.folder / "broker.crt", self._chain(), CERTIFICATE_MODE)
        replace_file(self.folder / "broker.key", _read(self.certificates / "broker.key"), FILE_MODE)
        give_to(ACCOUNT, self.folder, *(self.folder / name for name in BROKER_FILES))

    def _configure(self) -> None:
        template = string.Template(shipped_file("systemd/mosquitto/mosquitto.conf").read_text(encoding="utf-8"))
        text = template.substitute(port=self.port, folder=self.folder, state=self.state, plugin=_plugin())
        write_new_file(self.configuration, text.encode(), FILE_MODE)
        give_to(ACCOUNT, self.configuration)

    def _make_account(self, rules: Path, password_file: Path) -> None:
        if not password_file.exists():
            password_file.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            write_new_file(password_file, secrets.token_hex(PASSWORD_BYTES).encode() + b"\n", FILE_MODE)
        password = password_file.read_text(encoding="ascii").strip()
        self.state.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        write_new_file(rules, initial_rules(password, secrets.token_bytes(SALT_BYTES)), OWNER_WRITES)
        give_to(ACCOUNT, self.state, rules)


def _plugin() -> Path:
    found = [path for folder in LIBRARY_FOLDERS for path in (folder / PLUGIN, *folder.glob(f"*/{PLUGIN}"))]
    for path in found:
        if path.is_file():
            return path
    raise ConfigurationError(
        f"{PLUGIN}: not found below {', '.join(map(str, LIBRARY_FOLDERS))}; Mosquitto 2.0 or newer brings it: apt"
        " install mosquitto"
    )


def _require_free(port: int) -> None:
    try:
        with socket.create_server(("", port), reuse_port=False):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"port {port}: {error.strerror}; another program has it (see: ss -ltnp), so name another with --port"
        ) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        remedy = f"--certificates names a folder with {AUTHORITY}, {' and '.join(BROKER_FILES)}"
        raise ConfigurationError(f"{path}: {why_unreadable(error, remedy)}") from error


def unwritable(error: OSError, folder: Path) -> ConfigurationError:
    """The error for a file that could not be written."""
    otherwise = "run it with sudo" if isinstance(error, PermissionError) else "check the disk, or name another folder"
    remedy = remedy_for(error, otherwise)
    return ConfigurationError(f"{error.filename or folder}: {error.strerror}; {remedy}")
