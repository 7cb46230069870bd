"""What the commands of a helper's owner do, all but `run`."""

import argparse
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from edge_agent.profiles import detected_profile
from edge_agent.shell.host.this_board import this_board
from edge_agent.verbs.join import JoinSettings, join_fleet
from edge_agent.verbs.service import systemd_runs
from edge_agent.verbs.setup import Answers, set_up_device
from fleet_host.command_line import DISTRIBUTION, broker_answers, print_key, print_new_key
from fleet_host.key_files import read_key_file
from fleet_host.services import Installer, Service, installer_here, installer_of
from fleet_protocol.device_invitation import read_invitation
from fleet_protocol.keys import write_verify_key
from session_relay.helper.configuration import (
    COMMAND,
    CONFIGURATION,
    PROGRAM,
    STATE_FOLDER,
    STATUS_SOCKET,
    load_helper_configuration,
)
from session_relay.helper.status import ask_helper, words_of

SERVICE = Service(
    program=PROGRAM,
    package="edgeflock-agent",
    configured_by=f"{COMMAND} join INVITATION",
    units=("edgeflock-helper.service",),
    enabled=("edgeflock-helper.service",),
    configuration=CONFIGURATION,
    state=Path(STATE_FOLDER),
)
ALLOW = "allow it on the server: broker-coordinator helpers allow"


def _join(options: argparse.Namespace) -> None:
    folder: Path | None = options.folder and options.folder.resolve()
    settings = JoinSettings(
        folder / "helper.toml" if folder else options.config,
        options.profile or detected_profile(this_board()),
        PROGRAM,
        version(DISTRIBUTION),
        str(folder / "state") if folder else STATE_FOLDER,
        str(folder / "status.sock") if folder else STATUS_SOCKET,
        options.wait,
        load=load_helper_configuration,
    )
    invitation = read_invitation(options.invitation)
    join_fleet(invitation, settings, lambda words: _write_line(words + "\n"))
    if settings.configuration == CONFIGURATION and systemd_runs():
        installer_here().install(SERVICE, {})
    else:
        _write_line(f"start the helper: {COMMAND} run --config {settings.configuration}\n")
    _write_line(f"{ALLOW} {invitation.device}\n")


def _setup(options: argparse.Namespace) -> None:
    answers = Answers(
        options.fleet, options.device, options.coordinator_key, broker_answers(options), options.profile, options.task
    )
    made = set_up_device(options.config, answers, PROGRAM, state_folder=STATE_FOLDER, sample_socket=STATUS_SOCKET)
    sys.stdout.write(
        f"wrote {options.config}; start the helper: sudo {COMMAND} install-service\n"
        f"then approve it on the server: broker-coordinator devices approve {options.device} {write_verify_key(made)}\n"
        f"and {ALLOW} {options.device}\n"
    )


def _status(options: argparse.Namespace) -> None:
    answer = ask_helper(load_helper_configuration(options.config).sample_socket)
    _write_line(answer.decode() if options.json else words_of(answer))


def _keygen(options: argparse.Namespace) -> None:
    print_new_key(options.file, COMMAND)


def _key(options: argparse.Namespace) -> None:
    file = options.file or load_helper_configuration(options.config).key_file
    print_key(read_key_file(file, COMMAND).verify_key)


def _install(options: argparse.Namespace) -> None:
    installer: Installer = installer_of(options)
    installer.install(SERVICE, {})


def _uninstall(options: argparse.Namespace) -> None:
    installer_of(options).uninstall(SERVICE, [])


def _write_line(line: str) -> None:
    """At once, as another program may read it through a pipe."""
    sys.stdout.write(line)
    sys.stdout.flush()


VERBS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "join": _join,
    "setup": _setup,
    "status": _status,
    "keygen": _keygen,
    "key": _key,
    "install-service": _install,
    "uninstall-service": _uninstall,
}
