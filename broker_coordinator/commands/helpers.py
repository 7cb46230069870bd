"""`broker-coordinator helpers list | allow | deny`: which devices may run blocks of models for others."""

import argparse

from broker_coordinator.admission.fleet_view import DeviceState
from broker_coordinator.commands.output import add_noun, write_rows
from broker_coordinator.configuration import load_configuration
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.helper_registry import HelperRegistry
from broker_coordinator.storage.journal import Journal
from fleet_host.command_line import Verbs, name_of

LISTED = ("name", "state", "presence", "key_id", "note")


def add_parser(nouns: Verbs, *parents: argparse.ArgumentParser) -> None:
    """The noun and its verbs."""
    verb = add_noun(nouns, "helpers", "List, allow or deny helpers of split learning.", *parents)
    verb("list", "List the devices that are allowed as helpers.")
    allow = verb("allow", "Let a device run blocks of models for others, once it is approved as a device.")
    allow.add_argument("name", type=name_of("device"), metavar="NAME", help="the helper's name, as a device's")
    deny = verb("deny", "Let it do so no longer: its sessions move to other helpers.")
    deny.add_argument("name", type=name_of("device"), metavar="NAME", help="the helper's name, as a device's")


def run(options: argparse.Namespace) -> None:
    """Run the verb; a running coordinator's relay notices within two seconds."""
    configuration = load_configuration(options.config)
    opened = Journal.open_to_look if options.action == "list" else Journal.open
    with opened(configuration.journal()) as journal:
        registry = HelperRegistry(journal.engine)
        match options.action:
            case "allow":
                registry.allow(options.name)
            case "deny":
                registry.deny(options.name)
        rows = [_described(name, DeviceRegistry(journal.engine)) for name in registry.allowed()]
    write_rows(rows, LISTED, as_json=options.json, when_empty="no helper is allowed")


def _described(name: str, devices: DeviceRegistry) -> dict[str, object]:
    live = [each for each in devices.devices() if each.name == name and each.state is not DeviceState.REVOKED]
    if not live:
        note = f"has not enrolled; join it as a device, and: broker-coordinator devices approve {name}"
        return {"name": name, "state": None, "presence": None, "key_id": None, "note": note}
    device = live[-1]
    is_approved = device.state is DeviceState.APPROVED
    return {
        "name": name,
        "state": device.state.value,
        "presence": device.presence.value if is_approved else None,
        "key_id": device.key_id.hex(),
        "note": "" if is_approved else f"serves nobody before: broker-coordinator devices approve {name}",
    }
