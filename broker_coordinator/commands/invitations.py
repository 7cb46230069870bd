"""`broker-coordinator devices invite | invitations | withdraw`."""

import argparse
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence, Set

from broker_coordinator.admission.invited import InvitationState, Invited
from broker_coordinator.commands.certificates import authority_fingerprint
from broker_coordinator.commands.output import AddVerb, write_fields, write_rows
from broker_coordinator.configuration import CoordinatorConfiguration
from broker_coordinator.storage.invitation_registry import InvitationRegistry
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_host.command_line import name_of, whole_number
from fleet_host.extras import missing_extra_named
from fleet_host.wall_clock import require_time
from fleet_protocol.device_invitation import TOKEN_BYTES, DeviceInvitation, write_invitation
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import VerifyKey, key_id
from fleet_protocol.shards import shard_of

HOUR_SECONDS = 3600
HOURS = 24
MOST_HOURS = 24 * 90
LISTED = ("device", "state", "expires", "id", "refused", "last_refusal")
STALE = "stale"
"""In place of `open`: the coordinator's key that it names was deleted from `key_file`."""
TIME = "%Y-%m-%d %H:%M"


def add_verbs(verb: AddVerb) -> None:
    """The verbs."""
    invite = verb("invite", "Print an invitation: one line that lets one device join, once.")
    invite.add_argument("name", type=name_of("device"), metavar="NAME", help="the device's name from then on")
    invite.add_argument("--again", action="store_true", help="the device of this name was made anew, with another key")
    invite.add_argument(
        "--hours", type=whole_number(1, MOST_HOURS), default=HOURS, metavar="N", help=f"how long it counts ({HOURS})"
    )
    invite.add_argument(
        "--task",
        action="append",
        type=name_of("task"),
        metavar="NAME",
        help="a task to take part in; several times for more (all that are served)",
    )
    invite.add_argument("--qr", action="store_true", help="print a QR code too")
    verb("invitations", "List the invitations, and what was refused that showed one.")
    withdraw = verb("withdraw", "Let nobody use the open invitation of a device any more.")
    withdraw.add_argument("name", type=name_of("device"), metavar="NAME", help="the device's name")


def _invite(journal: Journal, options: argparse.Namespace, configuration: CoordinatorConfiguration) -> None:
    invitation = make_invitation(
        journal, configuration, options.name, hours=options.hours, tasks=options.task, again=bool(options.again)
    )
    line = write_invitation(invitation)
    if options.json:
        write_fields({"device": invitation.device, "expires": invitation.expires, "invitation": line}, as_json=True)
        return
    sys.stdout.write(line + "\n")
    if options.qr:
        _write_code(line)
    sys.stderr.write(
        f"for {invitation.device} alone, once, until {_shown(invitation.expires)}; whoever has the line can join in its"
        f" place. On the device: sudo edge-agent join {line[:14]}...\n"
    )


def make_invitation(
    journal: Journal,
    configuration: CoordinatorConfiguration,
    name: str,
    *,
    hours: int = HOURS,
    tasks: Sequence[str] | None = None,
    again: bool = False,
) -> DeviceInvitation:
    """Invite a device, once, to `tasks`, or to all that are served. `again`: it was made anew, with another key.

    Raises:
        ConfigurationError: this coordinator does not manage its broker's accounts, the machine does not know the time,
            or the name is taken.
    """
    invitation = _new_invitation(journal, configuration, name, hours, tasks)
    invited = Invited(
        invitation.device,
        invitation.key().verify_key,
        invitation.expires,
        replaces=again,
        coordinator_key=key_id(VerifyKey(invitation.coordinator_key)),
    )
    InvitationRegistry(journal.engine).add(invited, time.time())
    return invitation


def _new_invitation(
    journal: Journal, configuration: CoordinatorConfiguration, name: str, hours: int, tasks: Sequence[str] | None
) -> DeviceInvitation:
    settings, tls = configuration.invitations, configuration.broker.tls
    if configuration.broker_accounts is None or settings is None or tls is None:
        raise ConfigurationError(
            "coordinator.toml has no broker_accounts, [invitations] or [broker.tls]: this coordinator does not manage"
            " its broker's accounts, so that devices are let in by hand (docs/install-device.md); `broker-coordinator"
            " setup --host NAME` sets up a broker that it manages"
        )
    require_time("an invitation counts until a date")
    served = [task.name for task in TaskRegistry(journal.engine).tasks() if not task.removed]
    return DeviceInvitation(
        settings.host,
        settings.port,
        authority_fingerprint(tls.authority),
        bytes(configuration.keys()[0].verify_key),
        configuration.fleet,
        shard_of(name, configuration.served_shards),
        name,
        secrets.token_bytes(TOKEN_BYTES),
        int(time.time()) + hours * HOUR_SECONDS,
        list(tasks or served),
    )


def _write_code(line: str) -> None:
    """In the terminal, for a camera."""
    with missing_extra_named("broker-coordinator"):
        import segno  # noqa: PLC0415 - optional
    segno.make(line, error="l").terminal(sys.stdout, compact=True)


def _list(journal: Journal, options: argparse.Namespace, configuration: CoordinatorConfiguration) -> None:
    ring = configuration.keys()
    keys = {key_id(key.verify_key) for key in ring}
    found = InvitationRegistry(journal.engine).invitations(time.time())
    rows = [
        {
            "device": each.device,
            "state": STALE if _is_stale(each, keys) else each.state.value,
            "expires": _shown(each.expires),
            "id": each.identifier.hex(),
            "refused": each.refused,
            "last_refusal": each.last_refusal,
        }
        for each in found
    ]
    empty = "no invitation yet; make one with: devices invite NAME"
    write_rows(rows, LISTED, as_json=options.json, when_empty=empty)
    others = journal.overview.refused_invitations() - sum(each.refused for each in found)
    if others > 0 and not options.json:
        sys.stdout.write(f"refused beside these: {others} enrolments, with invitations for names that have none here\n")


def _is_stale(invited: Invited, keys: Set[bytes]) -> bool:
    """Whether it names a key of the coordinator that is gone: nothing that its device believes can be signed."""
    return invited.state is InvitationState.OPEN and invited.coordinator_key not in {b"", *keys}


def _withdraw(journal: Journal, options: argparse.Namespace, _: CoordinatorConfiguration) -> None:
    InvitationRegistry(journal.engine).withdraw(options.name)
    write_fields({"device": options.name, "state": "withdrawn"}, as_json=options.json)


def _shown(seconds: int) -> str:
    return time.strftime(TIME, time.localtime(seconds))


VERBS: Mapping[str, Callable[[Journal, argparse.Namespace, CoordinatorConfiguration], None]] = {
    "invite": _invite,
    "invitations": _list,
    "withdraw": _withdraw,
}
