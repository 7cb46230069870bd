"""What `openssl` says of certificates, and makes: authorities, and the broker's certificates."""

import ssl
import subprocess
import time
from pathlib import Path

from fleet_host.addresses import is_address
from fleet_host.certificates import DAY_SECONDS, fingerprint, read_authorities
from fleet_host.program_folder import AUTHORITY
from fleet_host.services import shipped_file
from fleet_host.wall_clock import require_time
from fleet_protocol.errors import ConfigurationError

RENEWED_DAYS = 90.0
"""`setup` makes the broker another certificate when this one counts no longer than that."""
NEEDS_TIME = "a certificate counts from the day on which it is made"
"""Said where the clock is wrong."""
LONGEST_SECONDS = 60.0
"""For a program that makes or reads a certificate."""


def authority_fingerprint(certificate: Path) -> bytes:
    """SHA-256 of an authority's certificate, the first in its file.

    Raises:
        ConfigurationError: it can't be read, or is no certificate.
    """
    return fingerprint(read_authorities(certificate)[0])


def certificate_days_left(certificate: Path, now: float) -> float:
    """How long any certificate counts from `now`, in seconds since 1970.

    Raises:
        ConfigurationError: it can't be read.
    """
    said = _run("openssl", "x509", "-in", str(certificate), "-noout", "-enddate").strip()
    return (ssl.cert_time_to_seconds(said.removeprefix("notAfter=")) - now) / DAY_SECONDS


def is_issued_by(certificate: Path, authority: Path) -> bool:
    """Whether the authority in a folder vouches for a certificate.

    Raises:
        ConfigurationError: `openssl` can't be run.
    """
    command = ("openssl", "verify", "-CAfile", str(authority / AUTHORITY), str(certificate))
    return _ended(*command).returncode == 0


def make_authority(folder: Path) -> None:
    """Make an authority in a folder that has none.

    Raises:
        ConfigurationError: it can't be made.
    """
    _make("authority", folder)


def make_broker_certificate(folder: Path, host: str) -> None:
    """Let the authority in a folder make the broker's certificate and key there.

    Raises:
        ConfigurationError: they can't be made.
    """
    _make("broker", folder, host)


def is_for(certificate: Path, host: str) -> bool:
    """Whether a certificate is for this name or address.

    Raises:
        ConfigurationError: it can't be read.
    """
    options = ("-checkip" if is_address(host) else "-checkhost", host)
    return "does match" in _run("openssl", "x509", "-in", str(certificate), "-noout", *options)


def lasts(certificate: Path) -> bool:
    """Whether a certificate need not be renewed yet.

    Raises:
        ConfigurationError: it can't be read.
    """
    return certificate_days_left(certificate, time.time()) >= RENEWED_DAYS


def _make(what: str, folder: Path, *more: str) -> None:
    require_time(NEEDS_TIME)
    _run("sh", str(shipped_file("systemd/mosquitto/certificates.sh")), what, str(folder), *more)


def _run(*command: str) -> str:
    done = _ended(*command)
    if done.returncode:
        raise ConfigurationError(done.stderr.strip() or f"{command[0]} ended with {done.returncode}")
    return done.stdout


def _ended(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST_SECONDS)
    except FileNotFoundError as error:
        raise ConfigurationError(f"{command[0]} is not installed: apt install {command[0]}") from error
