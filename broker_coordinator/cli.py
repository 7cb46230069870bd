"""The command line: `broker-coordinator run | keygen | devices | tasks`."""

import argparse
import gc
import logging
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from broker_coordinator.admission.settings import AdmissionSettings
from broker_coordinator.commands import devices, tasks
from broker_coordinator.configuration import PROGRAM, load_configuration
from broker_coordinator.distribution.signed_messages import MessageSigner
from broker_coordinator.mqtt.link import MqttLink
from broker_coordinator.serving.coordinator import Coordinator
from broker_coordinator.serving.evaluator import Evaluator
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.storage.database import JournalUnavailableError
from broker_coordinator.storage.journal import Journal
from bundle_runtime.bundle_folder import load_bundle
from fleet_host.key_files import make_key_file
from fleet_host.log_lines import configure_logging, log_line
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.keys import write_verify_key

GARBAGE_THRESHOLD = 50_000
"""New containers after which a running coordinator looks for cycles among them; Python's own is 700."""

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0, 1 if a check failed, or 2 for an error that the operator can correct."""
    options = _parser().parse_args(arguments)
    configure_logging()
    try:
        return _COMMANDS[options.command](options) or 0
    except (ConfigurationError, ProtocolError, JournalUnavailableError) as error:
        sys.stderr.write(f"{PROGRAM}: {error}\n")
        return 2


def _run(options: argparse.Namespace) -> None:
    configuration = load_configuration(options.config)
    fleet = configuration.fleet
    shard = configuration.shard
    metrics = Metrics()
    is_open = configuration.enrolment == "open"
    allowance = configuration.rate_limit.allowance()
    byte_allowance = configuration.rate_limit.byte_allowance()
    key = configuration.signing_key()
    signer = MessageSigner(key, fleet, shard)
    bundles = [load_bundle(task.bundle) for task in configuration.tasks]
    journal = Journal.open(configuration.journal())
    if configuration.metrics.port is not None:
        metrics.serve(configuration.metrics.address, configuration.metrics.port)
    evaluator = Evaluator(options.config, {each.task: each.every for each in configuration.evaluations})
    coordinator = Coordinator(
        journal,
        bundles,
        signer,
        AdmissionSettings(fleet, shard, is_open, configuration.maximum_devices, key, allowance, byte_allowance),
        retention=configuration.retention.rule(),
        metrics=metrics,
        on_version=evaluator.note_version,
    )
    link = MqttLink(configuration.broker, fleet, shard, coordinator)
    signal.set_wakeup_fd(link.wakeup.fileno())
    for stopping in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stopping, lambda *_: link.stop())
    # What exists now stays, and later objects have no cycles: garbage collection would only cost time per update.
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)
    logger.info(log_line("started", fleet=fleet, shard=shard, tasks=",".join(coordinator.tasks())))
    link.run()
    evaluator.stop()
    journal.close()


def _keygen(options: argparse.Namespace) -> None:
    sys.stdout.write(write_verify_key(make_key_file(options.file)) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Coordinates a fleet over MQTT.")
    commands = parser.add_subparsers(dest="command", required=True)
    with_config = argparse.ArgumentParser(add_help=False)
    with_config.add_argument("--config", type=Path, required=True, metavar="FILE", help="coordinator.toml")
    commands.add_parser("run", parents=[with_config], help="serve until SIGTERM or Ctrl-C")
    keygen = commands.add_parser("keygen", help="make the coordinator's key; prints the public key that devices pin")
    keygen.add_argument("file", type=Path, metavar="FILE")
    devices.add_parser(commands, [with_config])
    tasks.add_parser(commands, [with_config])
    return parser


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], int | None]] = {
    "run": _run,
    "keygen": _keygen,
    "devices": devices.run,
    "tasks": tasks.run,
}

if __name__ == "__main__":
    sys.exit(main())
