"""`broker-coordinator devices list | show | approve | revoke`."""

import argparse
from collections.abc import Callable, Mapping

from broker_coordinator.admission.fleet_view import Device
from broker_coordinator.commands.output import add_noun, write_fields, write_rows
from broker_coordinator.configuration import load_configuration
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.journal import Journal
from fleet_host.command_line import Verbs
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import read_verify_key, write_verify_key
from fleet_protocol.topics import check_name

LISTED = ("name", "state", "presence", "profile", "software", "public_key")


def add_parser(nouns: Verbs, *parents: argparse.ArgumentParser) -> None:
    """The noun and its verbs."""
    verb = add_noun(nouns, "devices", "List, show, approve or revoke devices.", *parents)
    verb("list", "List all devices that have enrolled.")
    show = verb("show", "Show a device, its keys, and what became of its messages.")
    show.add_argument("name", metavar="NAME", help="the device's name")
    approve = verb("approve", "Let a device take part: its updates count from now on.")
    approve.add_argument("name", metavar="NAME", help="the device's name")
    approve.add_argument(
        "public_key", metavar="PUBLIC_KEY", nargs="?", help="the key that `edge-agent key` prints on the device"
    )
    revoke = verb("revoke", "Refuse a device's key from now on.")
    revoke.add_argument("name", metavar="NAME", help="the device's name")


def run(options: argparse.Namespace) -> None:
    """Run the verb; a running coordinator notices at its next batch, or within a second."""
    with Journal.open(load_configuration(options.config).journal()) as journal:
        _VERBS[options.action](journal, options)


def _list(journal: Journal, options: argparse.Namespace) -> None:
    _write(DeviceRegistry(journal.engine).devices(), options)


def _approve(journal: Journal, options: argparse.Namespace) -> None:
    key = options.public_key and read_verify_key(options.public_key, "PUBLIC_KEY", "`edge-agent key` on the device")
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
