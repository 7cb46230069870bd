"""`broker-coordinator devices list | show | approve | revoke | forget`, and its verbs for invitations."""

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict

from broker_coordinator.admission.fleet_view import Device, DeviceState
from broker_coordinator.admission.invited import Invited
from broker_coordinator.commands import invitations
from broker_coordinator.commands.gossip_told import kept_by_neighbours, require_versions
from broker_coordinator.commands.output import add_noun, write_fields, write_rows
from broker_coordinator.configuration import PROGRAM, load_configuration
from broker_coordinator.serving.forgetting import Asked, Forgotten, check_asked, forget_device, would_forget
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.invitation_registry import InvitationRegistry
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_host.command_line import Verbs, name_of, whole_number
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import KEY_ID_BYTES, KeyRing, read_verify_key, write_verify_key
from fleet_protocol.limits import MAX_SEQUENCE
from fleet_protocol.topics import check_name

KEY_ID = re.compile(f"[0-9a-f]{{{2 * KEY_ID_BYTES}}}")
FORGOTTEN = ("task", "version", "replayed_from", "updates", "others", "distance", "length", "remains")
LISTED = ("name", "state", "presence", "key_id", "profile", "software", "note")


def add_parser(nouns: Verbs, *parents: argparse.ArgumentParser) -> None:
    """The noun and its verbs."""
    verb = add_noun(nouns, "devices", "List, show, invite, approve, revoke or forget devices.", *parents)
    verb("list", "List all devices that have enrolled.")
    show = verb("show", "Show a device, its keys, and what became of its messages.")
    show.add_argument("name", type=name_of("device"), metavar="NAME", help="the device's name")
    approve = verb("approve", "Let a device take part: its updates count from now on.")
    approve.add_argument("name", type=name_of("device"), metavar="NAME", help="the device's name")
    approve.add_argument(
        "key", metavar="KEY", nargs="?", help="the public key, or its id, that `edge-agent key` prints on the device"
    )
    revoke = verb("revoke", "Refuse a device's key from now on; later versions remember nothing of what it sent.")
    revoke.add_argument("name", type=name_of("device"), metavar="NAME", help="the device's name")
    revoke.add_argument(
        "--forget",
        action="store_true",
        help="compute the versions since its first update anew without it, and publish the result",
    )
    _add_forgetting_options(revoke, "what waits of it is set aside in every task")
    forget = verb("forget", "Compute versions anew without what a device has sent; what it sends later counts.")
    forget.add_argument("name", type=name_of("device"), metavar="NAME", help="the device's name")
    _add_forgetting_options(forget, "what it sent to others stays as it is")

    invitations.add_verbs(verb)


def _add_forgetting_options(verb: argparse.ArgumentParser, of_other_tasks: str) -> None:
    verb.add_argument(
        "--since",
        type=whole_number(1, MAX_SEQUENCE),
        metavar="VERSION",
        help="forget what this version and later ones hold of it, not what earlier ones do",
    )
    verb.add_argument(
        "--task",
        type=name_of("task"),
        metavar="TASK",
        help=f"compute versions of this task alone anew; {of_other_tasks}",
    )
    verb.add_argument(
        "--dry-run",
        action="store_true",
        help="change nothing; show what would be computed anew, and its effect",
    )


def run(options: argparse.Namespace) -> None:
    """Run the verb; a running coordinator notices at its next batch, or within a second.

    Raises:
        ConfigurationError: naming what can't be done, and why.
    """
    configuration = load_configuration(options.config)
    if options.action in {"revoke", "forget"}:
        _require_forgetting(options)
        if options.dry_run:
            with JournalReader.open(configuration.journal()) as reader:
                _would_forget(reader, options, configuration.keys())
            return
    opened = Journal.open_to_look if options.action == "list" else Journal.open
    with opened(configuration.journal()) as journal:
        if options.action in invitations.VERBS:
            invitations.VERBS[options.action](journal, options, configuration)
        elif options.action == "revoke" and options.forget:
            _check_asked(journal, options)
            DeviceRegistry(journal.engine).revoke(options.name)
            _forget(journal, options, configuration.keys())
        elif options.action == "forget":
            _check_asked(journal, options)
            DeviceRegistry(journal.engine).forget(options.name, options.task)
            _forget(journal, options, configuration.keys())
        else:
            _VERBS[options.action](journal, options)


def _list(journal: Journal, options: argparse.Namespace) -> None:
    _write(DeviceRegistry(journal.engine).devices(), options, notes_of(journal))


def _approve(journal: Journal, options: argparse.Namespace) -> None:
    _write([approve_device(DeviceRegistry(journal.engine), options.name, options.key)], options)


def approve_device(registry: DeviceRegistry, name: str, key: str | None) -> Device:
    """Let a device take part whose public key, or its id, is `key`: hex digits.

    Raises:
        ConfigurationError: it is neither, or bound otherwise; without one, what to compare.
        ProtocolError: what is no name.
    """
    name = check_name("device", name)
    if key is None:
        raise ConfigurationError(registry.what_to_compare(name))
    if KEY_ID.fullmatch(key):
        return registry.approve_named(name, bytes.fromhex(key))
    return registry.approve(name, read_verify_key(key, "KEY", "`edge-agent key` on the device"))


def _revoke(journal: Journal, options: argparse.Namespace) -> None:
    _write([DeviceRegistry(journal.engine).revoke(options.name)], options)


def _forget(journal: Journal, options: argparse.Namespace, keys: KeyRing) -> None:
    _write_forgotten(forget_device(journal, _asked(options), keys), options)


def _would_forget(journal: JournalReader, options: argparse.Namespace, keys: KeyRing) -> None:
    DeviceRegistry(journal.engine).require(options.name)
    _check_asked(journal, options)
    _write_forgotten(would_forget(journal, _asked(options), keys), options)


def _check_asked(journal: JournalReader, options: argparse.Namespace) -> None:
    if options.task is not None:
        require_versions(TaskRegistry(journal.engine), options.task, f"devices {options.action} --task")
    elif kept := kept_by_neighbours(TaskRegistry(journal.engine), options.name):
        sys.stderr.write(f"{PROGRAM}: {kept}\n")
    check_asked(journal, _asked(options))


def _asked(options: argparse.Namespace) -> Asked:
    return Asked(options.name, options.since, options.task)


def _require_forgetting(options: argparse.Namespace) -> None:
    """Options that say what to forget say nothing of a device that is revoked alone."""
    if options.action == "revoke" and not options.forget:
        given = {"--since": options.since is not None, "--task": options.task is not None, "--dry-run": options.dry_run}
        if named := [option for option, is_given in given.items() if is_given]:
            raise ConfigurationError(f"{', '.join(named)}: only with --forget, which computes versions anew; add it")


def _write_forgotten(found: Iterable[Forgotten], options: argparse.Namespace) -> None:
    rows: list[dict[str, object]] = []
    try:
        rows += (asdict(each) for each in found)
    finally:  # what is done in one task is told where another one fails
        _write_rows_of_tasks(rows, options)


def _write_rows_of_tasks(rows: list[dict[str, object]], options: argparse.Namespace) -> None:
    if not options.json:
        rows = [row | {key: f"{row[key]:.4g}" for key in ("distance", "length")} for row in rows]
    write_rows(rows, FORGOTTEN, as_json=options.json, when_empty=f"nothing of {options.name} is in any version")


def _show(journal: Journal, options: argparse.Namespace) -> None:
    found = [device for device in DeviceRegistry(journal.engine).devices() if device.name == options.name]
    if not found:
        raise ConfigurationError(f"no device {options.name!r}; see: broker-coordinator devices list")
    row = device_row(found[-1], notes_of(journal)) | {
        "accepted": journal.overview.accepted_counts(options.name),
        "refused": {reason.value: count for reason, count in journal.overview.rejections_of(options.name).items()},
        "keys": [{"public_key": write_verify_key(each.public_key), "state": each.state.value} for each in found],
    }
    write_fields(row, as_json=options.json)


Notes = Callable[[Device], str]


def notes_of(journal: JournalReader) -> Notes:
    """What an operator should know of a device beside its own columns."""
    registry = DeviceRegistry(journal.engine)
    used_twice, had_accounts = registry.used_twice(), registry.had_accounts()
    refused: dict[str, list[Invited]] = {}
    for each in InvitationRegistry(journal.engine).invitations(time.time()):
        if each.refused:
            refused.setdefault(each.device, []).append(each)

    def note(device: Device) -> str:
        words = ["two devices use this key"] if device.name in used_twice else []
        if device.key_id in had_accounts:
            words.append("took part before the database was restored: approve it, unless you have revoked it since")
        if device.state is not DeviceState.REVOKED and (tried := refused.get(device.name)):
            words.append(f"{sum(each.refused for each in tried)} enrolments refused: {tried[-1].last_refusal}")
        return "; ".join(words)

    return note


def _no_note(_: Device) -> str:
    return ""


def _write(devices: list[Device], options: argparse.Namespace, note: Notes = _no_note) -> None:
    rows = [device_row(device, note) for device in devices]
    write_rows(rows, LISTED, as_json=options.json, when_empty="no device has enrolled yet")


def device_row(device: Device, note: Notes) -> dict[str, object]:
    """A device, in one row."""
    return {
        "name": device.name,
        "state": device.state.value,
        "presence": device.presence.value if device.state is DeviceState.APPROVED else None,
        "boot": device.boot,
        "profile": device.profile,
        "software": device.software,
        "key_id": device.key_id.hex(),
        "public_key": write_verify_key(device.public_key),
        "note": note(device),
    }


_VERBS: Mapping[str, Callable[[Journal, argparse.Namespace], None]] = {
    "list": _list,
    "show": _show,
    "approve": _approve,
    "revoke": _revoke,
}
