"""How a machine becomes a member of a fleet, as an agent or as a helper: `join`, `setup`, and its key."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from edge_agent.configuration import AgentConfiguration
from edge_agent.profiles import detected_profile
from edge_agent.shell.host.this_board import this_board
from edge_agent.verbs.join import JoinSettings, join_fleet
from edge_agent.verbs.service import systemd_runs
from edge_agent.verbs.setup import Answers, set_up_device
from edge_agent.verbs.setup_with_account import set_up_with_account
from fleet_host.command_line import DISTRIBUTION, broker_answers, print_key, print_new_key, write_line
from fleet_host.key_files import read_key_file
from fleet_host.services import Service
from fleet_protocol.device_invitation import read_invitation
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import write_verify_key

Verb = Callable[[argparse.Namespace], None]


@dataclass(frozen=True, slots=True)
class Member:
    """A program with which a machine is a member, for the machine's owner.

    `noun` is what it is called, `socket` where it answers; `load` reads its configuration, `start` installs its service
    on this system and starts it. `left_to_do` is a command for the server, before the machine's name; empty: none.
    """

    service: Service
    noun: str
    socket: Path
    load: Callable[[Path], AgentConfiguration]
    start: Callable[[], None]
    left_to_do: str = ""

    def verbs(self) -> Mapping[str, Verb]:
        """What each of its verbs does."""
        verbs = {"join": _join, "setup": _setup, "keygen": _keygen, "key": _key}
        return {name: partial(verb, self) for name, verb in verbs.items()}


def _join(member: Member, options: argparse.Namespace) -> None:
    folder: Path | None = options.folder and options.folder.resolve()
    service = member.service
    settings = JoinSettings(
        folder / service.configuration.name if folder else options.config,
        options.profile or detected_profile(this_board()),
        service.program,
        version(DISTRIBUTION),
        str(folder / "state" if folder else service.state),
        str(folder / member.socket.name if folder else member.socket),
        options.wait,
        member.load,
    )
    invitation = read_invitation(options.invitation)
    join_fleet(invitation, settings, write_line)
    if settings.configuration == service.configuration and systemd_runs():
        member.start()
    else:
        write_line(f"start the {member.noun}: {service.program} run --config {settings.configuration}")
    if member.left_to_do:
        write_line(f"then on the server: {member.left_to_do} {invitation.device}")


def _setup(member: Member, options: argparse.Namespace) -> None:
    program = member.service.program
    answers = Answers(
        options.fleet,
        options.device,
        options.coordinator_key,
        broker_answers(options),
        options.profile,
        options.task or [],
        str(member.service.state),
        str(member.socket),
    )
    if options.authority is None:
        made = set_up_device(options.config, answers, program)
    elif options.certificates is None:
        made = set_up_with_account(options.config, answers, options.authority, program)
    else:
        raise ConfigurationError("--authority is for a broker with passwords, --certificates for another; name one")
    write_line(f"wrote {options.config}; start the {member.noun}: sudo {program} install-service")
    approve = f"broker-coordinator devices approve {options.device} {write_verify_key(made)}"
    write_line(f"then approve it on the server: {approve}")
    if member.left_to_do:
        write_line(f"and: {member.left_to_do} {options.device}")


def _keygen(member: Member, options: argparse.Namespace) -> None:
    print_new_key(options.file, member.service.program)


def _key(member: Member, options: argparse.Namespace) -> None:
    file = options.file or member.load(options.config).key_file
    print_key(read_key_file(file, member.service.program).verify_key)
