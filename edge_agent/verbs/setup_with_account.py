"""`edge-agent setup --authority`: for approval by hand, at a broker whose accounts the coordinator makes."""

import re
from pathlib import Path

from edge_agent.configuration import AgentConfiguration
from edge_agent.profiles import read_profile
from edge_agent.verbs.authority_download import download_authority
from edge_agent.verbs.broker_account import KEY_FILE, account_table, own_key, write_password
from edge_agent.verbs.setup import Answers, answers_text
from fleet_host.configuration_file import parse_with_paths
from fleet_host.new_files import remedy_for, replace_file
from fleet_host.program_folder import AUTHORITY, FILE_MODE, FOLDER_MODE, PASSWORD_FILE, TLS_PORT, give_to
from fleet_protocol.device_invitation import FINGERPRINT_BYTES
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import SigningKey, VerifyKey, read_verify_key

_FINGERPRINT = re.compile(f"[0-9a-f]{{{2 * FINGERPRINT_BYTES}}}")


def set_up_with_account(configuration: Path, answers: Answers, authority: str, program: str) -> VerifyKey:
    """Write agent.toml and what it names beside it; returns the device's public key, which is to be approved.

    `authority` is the fingerprint in hex of the authority's certificate, which the broker is asked for.

    Raises:
        ConfigurationError: an answer can't be, the broker shows another authority, or there is a configuration already.
    """
    fingerprint = authority.lower().replace(":", "")
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise ConfigurationError(
            f"--authority {authority[:16]!r}: expected {2 * FINGERPRINT_BYTES} hex digits, which `broker-coordinator"
            " key` prints on the server"
        )
    coordinator = read_verify_key(
        answers.coordinator_key, "--coordinator-key", "`broker-coordinator key` on the server"
    )
    read_profile(answers.profile)
    if configuration.exists():
        raise ConfigurationError(f"{configuration} exists and stays as it is; edit it, or remove it first")
    host, port = answers.broker.host, answers.broker.port or TLS_PORT
    _check(configuration, answers, account_table(host, port, answers.device, SigningKey.generate().verify_key))
    try:
        certificate = download_authority(host, port, bytes.fromhex(fingerprint))
    except OSError as error:
        raise ConfigurationError(
            f"{host}:{port}: {error}; check the network, and that the broker runs there; then run the same again"
        ) from error
    folder = configuration.parent
    try:
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        key = own_key(folder / KEY_FILE, program)
        replace_file(folder / AUTHORITY, certificate.encode(), FILE_MODE)
        write_password(folder, key, coordinator)
        text = _check(configuration, answers, account_table(host, port, answers.device, key.verify_key))
        replace_file(configuration, text.encode(), FILE_MODE)
        give_to(program, folder, configuration, *(folder / each for each in (KEY_FILE, AUTHORITY, PASSWORD_FILE)))
    except OSError as error:
        remedy = remedy_for(error, "run it with sudo" if isinstance(error, PermissionError) else "check the disk")
        raise ConfigurationError(f"{error.filename or folder}: {error.strerror}; {remedy}") from error
    return key.verify_key


def _check(configuration: Path, answers: Answers, broker: str) -> str:
    """The text of agent.toml, which an agent can read."""
    text = answers_text(answers, broker)
    parse_with_paths(text.encode(), AgentConfiguration, str(configuration))
    return text
