"""The command line: `broker-coordinator run | keygen | devices | tasks`."""

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from broker_coordinator.admission import AdmissionPolicy
from broker_coordinator.bundle_store import load_bundle
from broker_coordinator.configuration import load_configuration
from broker_coordinator.coordinator import Coordinator
from broker_coordinator.database import JournalUnavailableError, open_database
from broker_coordinator.device_registry import DeviceRegistry
from broker_coordinator.journal import Journal
from broker_coordinator.knowledge import Device
from broker_coordinator.log_line import log_line
from broker_coordinator.mqtt_link import MqttLink
from broker_coordinator.publications import Speaker
from broker_coordinator.task_export import model_of, write_model
from fleet_protocol.bundle import blob_hash
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.keys import SigningKey, read_signing_key, read_verify_key, write_signing_key, write_verify_key
from fleet_protocol.topics import check_name

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0, or 2 where the operator has something to mend."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        _COMMANDS[options.command](options)
    except (ConfigurationError, ProtocolError, JournalUnavailableError) as error:
        sys.stderr.write(f"broker-coordinator: {error}\n")
        return 2
    return 0


def _run(options: argparse.Namespace) -> None:
    configuration = load_configuration(options.config)
    fleet, shard = configuration.fleet, configuration.shard
    key = _read_key(configuration.key_file)
    policy = AdmissionPolicy(fleet, shard, configuration.enrolment == "open", configuration.maximum_devices, key)
    speaker = Speaker(key, fleet, shard)
    bundles = [load_bundle(task.bundle) for task in configuration.tasks]
    journal = Journal.open(configuration.database)
    link = MqttLink(configuration.broker, fleet, shard, Coordinator(journal, bundles, speaker, policy))
    signal.set_wakeup_fd(link.wakeup.fileno())
    for stopping in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stopping, lambda *_: link.stop())
    logger.info(
        log_line("started", fleet=fleet, shard=shard, tasks=",".join(bundle.description.task for bundle in bundles))
    )
    link.run()
    journal.close()


def _read_key(path: Path) -> SigningKey:
    try:
        return read_signing_key(path.read_text(encoding="ascii"), path.stat().st_mode, str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"key file {path}: {error}; make one with: broker-coordinator keygen {path}"
        ) from error


def _keygen(options: argparse.Namespace) -> None:
    key = SigningKey.generate()
    try:
        descriptor = os.open(options.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigurationError(
            f"{options.file} exists; a key is never overwritten: remove it, or name another"
        ) from error
    except OSError as error:
        raise ConfigurationError(f"{options.file}: {error.strerror}") from error
    with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123 - a descriptor, for its mode
        file.write(write_signing_key(key))
    sys.stdout.write(write_verify_key(key.verify_key) + "\n")


def _devices(options: argparse.Namespace) -> None:
    registry = DeviceRegistry(open_database(load_configuration(options.config).database))
    found = _DEVICE_ACTIONS[options.action](registry, options)
    described = [_described(device) for device in found]
    if options.json:
        sys.stdout.write(json.dumps(described, indent=2) + "\n")
    for device in described if not options.json else []:
        sys.stdout.write("  ".join(str(device[name]) for name in _LISTED) + "\n")
    if not described and not options.json:
        sys.stdout.write("no device has introduced itself yet\n")


def _approve(registry: DeviceRegistry, options: argparse.Namespace) -> list[Device]:
    key = options.public_key and read_verify_key(options.public_key, "PUBLIC_KEY")
    return [registry.approve(check_name("device", options.name), key or None)]


def _revoke(registry: DeviceRegistry, options: argparse.Namespace) -> list[Device]:
    return [registry.revoke(options.name)]


def _export(options: argparse.Namespace) -> None:
    configuration = load_configuration(options.config)
    weights = model_of(configuration, options.task, options.version, single=options.single)
    write_model(options.out, weights)
    sys.stdout.write(f"{options.out}: {len(weights)} bytes, SHA-256 {blob_hash(weights)}\n")


_LISTED = ("name", "state", "presence", "profile", "software", "public_key")


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="broker-coordinator", description="Coordinates a fleet over MQTT.")
    commands = parser.add_subparsers(dest="command", required=True)
    with_config = argparse.ArgumentParser(add_help=False)
    with_config.add_argument("--config", type=Path, required=True, metavar="FILE", help="coordinator.toml")
    commands.add_parser("run", parents=[with_config], help="serve until SIGTERM or Ctrl-C")
    keygen = commands.add_parser("keygen", help="make the coordinator's key; prints the public key that devices pin")
    keygen.add_argument("file", type=Path, metavar="FILE")
    devices = commands.add_parser("devices", parents=[with_config], help="list, approve or revoke devices")
    actions = devices.add_subparsers(dest="action", required=True)
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true")
    actions.add_parser("list", parents=[as_json], help="all devices that introduced themselves")
    approve = actions.add_parser("approve", parents=[as_json], help="let a device take part")
    approve.add_argument("name", metavar="NAME")
    approve.add_argument("public_key", metavar="PUBLIC_KEY", nargs="?", help="for a device that was not heard yet")
    revoke = actions.add_parser("revoke", parents=[as_json], help="believe a device's key no more")
    revoke.add_argument("name", metavar="NAME")
    tasks = commands.add_parser("tasks", parents=[with_config], help="take out a task's model")
    export = tasks.add_subparsers(dest="action", required=True).add_parser(
        "export", help="write the model to use as safetensors: the mean of the last versions, as the task says"
    )
    export.add_argument("task", metavar="TASK")
    export.add_argument("out", type=Path, metavar="OUT")
    export.add_argument("--version", type=int, metavar="N", help="up to this version, not the newest")
    export.add_argument("--single", action="store_true", help="that version by itself, as devices train from it")
    return parser


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "run": _run,
    "keygen": _keygen,
    "devices": _devices,
    "tasks": _export,
}
_DEVICE_ACTIONS: Mapping[str, Callable[[DeviceRegistry, argparse.Namespace], list[Device]]] = {
    "list": lambda registry, _: registry.devices(),
    "approve": _approve,
    "revoke": _revoke,
}

if __name__ == "__main__":
    sys.exit(main())
