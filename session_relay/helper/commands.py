"""What the commands of a helper's owner do, all but `run`."""

import argparse
from collections.abc import Callable, Mapping

from edge_agent.verbs.member_verbs import Member
from fleet_host.command_line import write_at_once
from fleet_host.new_files import remedy_for, replace_file
from fleet_host.services import Service, installer_here, installer_of
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import write_verify_key
from session_relay.helper.configuration import (
    CONFIGURATION,
    PROGRAM,
    STATE_FOLDER,
    STATUS_SOCKET,
    load_helper_configuration,
)
from session_relay.helper.mask_claims import FILE_NAME, read_encryption_key_file, read_mask_key
from session_relay.helper.status import ask_helper, words_of

SERVICE = Service(
    program=PROGRAM,
    package="edgeflock-agent",
    configured_by=f"{PROGRAM} join INVITATION",
    units=("edgeflock-helper.service",),
    enabled=("edgeflock-helper.service",),
    configuration=CONFIGURATION,
    state=STATE_FOLDER,
)


def _start() -> None:
    installer_here().install(SERVICE, {})


def _status(options: argparse.Namespace) -> None:
    answer = ask_helper(load_helper_configuration(options.config).sample_socket)
    write_at_once(answer.decode() if options.json else words_of(answer))


def _mask_key(options: argparse.Namespace) -> None:
    state = load_helper_configuration(options.config).state_folder
    write_at_once(f"{write_verify_key(read_mask_key(state / FILE_NAME))}\n")


def _encryption_key(options: argparse.Namespace) -> None:
    state = load_helper_configuration(options.config).state_folder
    content = read_encryption_key_file(state / FILE_NAME)
    try:
        replace_file(options.file, content)
    except OSError as error:
        remedy = remedy_for(error, "name a file in a folder that is there and can be written")
        raise ConfigurationError(f"{options.file}: can't be written: {error.strerror}; {remedy}") from error


def _install(options: argparse.Namespace) -> None:
    installer_of(options).install(SERVICE, {})


def _uninstall(options: argparse.Namespace) -> None:
    installer_of(options).uninstall(SERVICE, [])


MEMBER = Member(SERVICE, "helper", STATUS_SOCKET, load_helper_configuration, _start, "broker-coordinator helpers allow")
VERBS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    **MEMBER.verbs(),
    "status": _status,
    "mask-key": _mask_key,
    "encryption-key": _encryption_key,
    "install-service": _install,
    "uninstall-service": _uninstall,
}
