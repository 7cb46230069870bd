"""`edge-agent join`: from an invitation to a device that takes part."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_agent.configuration import AgentConfiguration, load_configuration
from edge_agent.profiles import read_profile
from edge_agent.shell.connection.joining import enrol, is_accepted, try_login
from edge_agent.shell.connection.pinned_authorities import FILE as FOLLOWED_AUTHORITIES
from edge_agent.shell.connection.pinned_authorities import pinned_authorities
from edge_agent.shell.connection.pinned_keys import FILE as FOLLOWED_KEYS
from edge_agent.verbs.authority_download import download_authority
from edge_agent.verbs.broker_account import KEY_FILE, account_table, own_key, write_password
from edge_agent.verbs.patience import Say, await_clock, by, patiently
from edge_agent.verbs.setup import AgentText, agent_text
from fleet_host.broker_settings import BrokerSettings, TlsSettings
from fleet_host.certificates import fingerprint, read_authorities
from fleet_host.configuration_file import parse_with_paths
from fleet_host.new_files import remedy_for, replace_file
from fleet_host.program_folder import AUTHORITY, FILE_MODE, FOLDER_MODE, PASSWORD_FILE, give_to
from fleet_host.wall_clock import SHOWN
from fleet_protocol.broker_accounts import account_name, client_identifier, own_password
from fleet_protocol.device_invitation import DeviceInvitation
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import SigningKey, VerifyKey
from fleet_protocol.kinds import Receipt

ACCOUNT_SECONDS = 30.0
"""How long the coordinator may take to make an account at the broker."""


@dataclass(frozen=True, slots=True)
class JoinSettings:
    """What join is told beside the invitation. `patience_seconds`: for the clock, the network and the coordinator."""

    configuration: Path
    profile: str
    program: str
    software: str
    state_folder: str
    sample_socket: str
    patience_seconds: float
    load: Callable[[Path], AgentConfiguration] = load_configuration
    """Reads what is configured already."""


def join_fleet(invitation: DeviceInvitation, settings: JoinSettings, say: Say) -> None:
    """Enrol this device, and write agent.toml with all that it names. Run again, it goes on where it was.

    Raises:
        ConfigurationError: it can't join; nothing but its key and the authority's certificate may have been written.
    """
    path = settings.configuration
    try:
        if path.exists():
            _require_same(path, settings.load(path), invitation)
            say(f"{path} is there: this device is {invitation.device} of fleet {invitation.fleet} already")
        else:
            _join(invitation, settings, say)
            say(f"joined: wrote {path}")
    except OSError as error:
        remedy = remedy_for(
            error,
            "run it with sudo" if isinstance(error, PermissionError) else "check the disk, or name another folder",
        )
        raise ConfigurationError(f"{error.filename or path.parent}: {error.strerror}; {remedy}") from error


def _join(invitation: DeviceInvitation, settings: JoinSettings, say: Say) -> None:
    path = settings.configuration
    folder = path.parent
    read_profile(settings.profile)
    deadline = time.monotonic() + settings.patience_seconds
    await_clock(deadline, say)
    _require_unexpired(invitation)
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    key = own_key(folder / KEY_FILE, settings.program)
    text = _text(invitation, settings, key.verify_key)
    _fetch_authority(invitation, folder, deadline, say)
    _require_accepted(_enrol(invitation, settings, key, deadline, say), invitation, folder / KEY_FILE)
    _log_in(invitation, folder, key, deadline, say)
    _forget_followed(Path(settings.state_folder))
    replace_file(path, text.encode(), FILE_MODE)
    give_to(settings.program, folder, path, *(folder / each for each in (KEY_FILE, AUTHORITY, PASSWORD_FILE)))


def _require_same(configuration: Path, found: AgentConfiguration, invitation: DeviceInvitation) -> None:
    anew = f"to let it join anew, stop the agent and remove {configuration} and {configuration.parent / KEY_FILE}"
    if (found.fleet, found.device) != (invitation.fleet, invitation.device):
        raise ConfigurationError(
            f"{configuration} exists: this device is {found.device} of fleet {found.fleet}, and the invitation is for"
            f" {invitation.device} of fleet {invitation.fleet}; {anew}"
        )
    believed = pinned_authorities(found.state_folder, found.broker)
    if believed is not None and invitation.authority not in map(fingerprint, read_authorities(believed.file)):
        raise ConfigurationError(
            f"{configuration} exists, and {believed.file} has not the authority {invitation.authority.hex()[:16]}... of"
            f" the invitation, which this device has not followed to; {anew}"
        )


def _forget_followed(state_folder: Path) -> None:
    """What this device has followed to before, it might prefer to what the invitation names, which is of now."""
    for name in (FOLLOWED_AUTHORITIES, FOLLOWED_KEYS):
        (state_folder / name).unlink(missing_ok=True)


def _require_unexpired(invitation: DeviceInvitation) -> None:
    if (now := time.time()) > invitation.expires:
        shown, until = (time.strftime(SHOWN, time.localtime(each)) for each in (now, invitation.expires))
        raise ConfigurationError(
            f"the invitation counted until {until}, and it is {shown}; if the clock is right, ask for a new one:"
            f" broker-coordinator devices invite {invitation.device}"
        )


def _text(invitation: DeviceInvitation, settings: JoinSettings, key: VerifyKey) -> str:
    """agent.toml, checked: what an invitation says may be anything."""
    text = agent_text(
        AgentText(
            invitation.fleet,
            invitation.device,
            invitation.coordinator_key.hex(),
            account_table(invitation.host, invitation.port, invitation.device, key),
            settings.profile,
            invitation.tasks,
            invitation.shard,
            settings.state_folder,
            settings.sample_socket,
        )
    )
    parse_with_paths(text.encode(), AgentConfiguration, str(settings.configuration))
    return text


def _fetch_authority(invitation: DeviceInvitation, folder: Path, deadline: float, say: Say) -> None:
    host, port = invitation.host, invitation.port
    say(f"asking {host}:{port} for the authority's certificate")
    found = patiently(lambda: download_authority(host, port, invitation.authority), deadline, f"{host}:{port}")
    replace_file(folder / AUTHORITY, found.encode(), FILE_MODE)


def _enrol(invitation: DeviceInvitation, settings: JoinSettings, key: SigningKey, deadline: float, say: Say) -> Receipt:
    folder = settings.configuration.parent
    token = invitation.key()
    guest = account_name(invitation.device, token.verify_key)
    described = (settings.profile, settings.software)
    say(f"enrolling as {invitation.device} of fleet {invitation.fleet}")
    password = own_password(token, VerifyKey(invitation.coordinator_key))
    with _password_in(folder / f"{PASSWORD_FILE}.invitation", password) as file:
        broker = _broker(invitation, guest, file, folder)
        return patiently(
            lambda: asyncio.run(by(deadline, enrol(invitation, broker, guest, key, described))),
            deadline,
            f"{invitation.host}:{invitation.port}",
            "the broker does not know this invitation: it is withdrawn, expired or of another fleet, or the coordinator"
            f" does not run; on the server: broker-coordinator devices invitations, and: devices invite"
            f" {invitation.device}",
        )


def _log_in(invitation: DeviceInvitation, folder: Path, key: SigningKey, deadline: float, say: Say) -> None:
    """Write this device's password at the broker, and see that it counts."""
    write_password(folder, key, VerifyKey(invitation.coordinator_key))
    broker = _broker(invitation, account_name(invitation.device, key.verify_key), folder / PASSWORD_FILE, folder)
    identifier = client_identifier(invitation.fleet, invitation.device)
    say("enrolled; waiting for this device's account at the broker")
    until = max(deadline, time.monotonic() + ACCOUNT_SECONDS)
    patiently(
        lambda: asyncio.run(by(until, try_login(broker, identifier))),
        until,
        f"{invitation.host}:{invitation.port}",
        "the coordinator has accepted this device, and made no account at the broker: see the coordinator's log, and"
        " run the same again",
    )


def _require_accepted(receipt: Receipt, invitation: DeviceInvitation, key_file: Path) -> None:
    if is_accepted(receipt):
        return
    remedy = f"; remove {key_file}, and run this again: it makes a new key" if receipt.reason == "revoked_key" else ""
    raise ConfigurationError(f"the coordinator refuses {invitation.device}: {receipt.detail}{remedy}")


def _broker(invitation: DeviceInvitation, account: str, password_file: Path, folder: Path) -> BrokerSettings:
    return BrokerSettings(
        host=invitation.host,
        port=invitation.port,
        username=account,
        password_file=password_file,
        tls=TlsSettings(folder / AUTHORITY),
    )


@contextlib.contextmanager
def _password_in(path: Path, password: str) -> Iterator[Path]:
    """A file with a password, for the length of a block."""
    replace_file(path, password.encode() + b"\n", FILE_MODE)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
