"""`broker-coordinator run`."""

import argparse
import gc
import logging
import signal

from broker_coordinator.configuration import load_configuration
from broker_coordinator.distribution.signed_messages import MessageSigner
from broker_coordinator.mqtt.link import MqttLink
from broker_coordinator.serving.coordinator import Coordinator
from broker_coordinator.serving.evaluator import Evaluator
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.storage.journal import Journal
from bundle_runtime.bundle_folder import load_bundle
from fleet_host.command_line import Verbs, add_verb
from fleet_host.log_lines import log_line

GARBAGE_THRESHOLD = 50_000
"""New containers after which a running coordinator looks for cycles among them; Python's own is 700."""

logger = logging.getLogger(__name__)


def add_parser(verbs: Verbs, *parents: argparse.ArgumentParser) -> None:
    """The verb."""
    add_verb(verbs, "run", "Serve the fleet in the foreground until SIGTERM or Ctrl-C.", *parents)


def run(options: argparse.Namespace) -> None:
    """Serve until told to stop."""
    configuration = load_configuration(options.config)
    fleet = configuration.fleet
    shard = configuration.shard
    metrics = Metrics()
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
        configuration.admission_settings(key),
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
