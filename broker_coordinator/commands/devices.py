"""`broker-coordinator devices list | show | approve | revoke`."""

import argparse
from collections.abc import Callable, Mapping
from typing import TypeAlias

from broker_coordinator.admission.fleet_view import Device
from broker_coordinator.commands.output import write_fields, write_rows
from broker_coordinator.configuration import load_configuration
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.journal import Journal
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import read_verify_key, write_verify_key
from fleet_protocol.topics import check_name

Nouns: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
LISTED = ("name", "state", "presence", "profile", "software", "public_key")


def add_parser(nouns: Nouns, parents: list[argparse.ArgumentParser]) -> None:
    """The noun and its verbs."""
    devices = nouns.add_parser("devices", parents=parents, help="list, show, approve or revoke devices")
    verbs = devices.add_subparsers(dest="action", required=True)
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true")
    verbs.add_parser("list", parents=[as_json], help="all devices that have enrolled")
    show = verbs.add_parser("show", parents=[as_json], help="a device, and what became of its messages")
    show.add_argument("name", metavar="NAME")
    approve = verbs.add_parser("approve", parents=[as_json], help="let a device take part")
    approve.add_argument("name", metavar="NAME")
    approve.add_argument("public_key", metavar="PUBLIC_KEY", nargs="?", help="for a device that has not enrolled")
    revoke = verbs.add_parser("revoke", parents=[as_json], help="stop accepting a device's key")
    revoke.add_argument("name", metavar="NAME")


def run(options: argparse.Namespace) -> None:
    """Run the verb; a running coordinator notices at its next batch, or within a second."""
    with Journal.open(load_configuration(options.config).journal()) as journal:
        _VERBS[options.action](journal, options)


def _list(journal: Journal, options: argparse.Namespace) -> None:
    _write(DeviceRegistry(journal.engine).devices(), options)


def _approve(journal: Journal, options: argparse.Namespace) -> None:
    key = options.public_key and read_verify_key(options.public_key, "PUBLIC_KEY")
    _write([DeviceRegistry(journal.engine).approve(check_name("device", options.name), key or None)], options)


def _revoke(journal: Journal, options: argparse.Namespace) -> None:
    _write([DeviceRegistry(journal.engine).revoke(options.name)], options)


def _show(journal: Journal, options: argparse.Namespace) -> None:
    found = [device for device in DeviceRegistry(journal.engine).devices() if device.name == options.name]
    if not found:
        raise ConfigurationError(f"no device {options.name!r}; see: broker-coordinator devices list")
    row = _described(found[-1]) | {
        "accepted": journal.accepted_counts(options.name),
        "refused": {reason.value: count for reason, count in journal.rejections_of(options.name).items()},
        "keys": [{"public_key": write_verify_key(each.public_key), "state": each.state.value} for each in found],
    }
    write_fields(row, as_json=options.json)


def _write(devices: list[Device], options: argparse.Namespace) -> None:
    rows = [_described(device) for device in devices]
    write_rows(rows, LISTED, as_json=options.json, when_empty="no device has enrolled yet")


def _described(device: Device) -> dict[str, object]:
    return {
        "name": device.name,
        "state": device.state.value,
        "presence": device.presence.value,
        "boot": device.boot,
        "profile": device.profile,
        "software": device.software,
        "public_key": write_verify_key(device.public_key),
    }


_VERBS: Mapping[str, Callable[[Journal, argparse.Namespace], None]] = {
    "list": _list,
    "show": _show,
    "approve": _approve,
    "revoke": _revoke,
}
