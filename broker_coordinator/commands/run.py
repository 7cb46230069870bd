"""`broker-coordinator run`: waits for its database to be free, and serves until a signal."""

import argparse
import faulthandler
import gc
import logging
import signal
import threading
from collections.abc import Callable
from functools import partial

from broker_coordinator.commands.authority_sets import authority_sets
from broker_coordinator.commands.dashboard_child import DashboardChild, dashboard_port
from broker_coordinator.commands.relay_child import RelayChild
from broker_coordinator.configuration import CoordinatorConfiguration, load_configuration
from broker_coordinator.distribution.signed_messages import MessageSigner
from broker_coordinator.mqtt.link import MqttLink
from broker_coordinator.serving.cluster_finder import ClusterFinder
from broker_coordinator.serving.coordinator import Coordinator
from broker_coordinator.serving.evaluator import Evaluator
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.serving.takeover import take_over
from broker_coordinator.serving.variety_watch import VarietyWatch
from broker_coordinator.serving.version_maker import OnVersion
from broker_coordinator.storage.database import DatabaseSetBackError
from broker_coordinator.storage.database_size import database_bytes
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.lease import VERSIONS, Lease, LeaseLostError, intake_of
from bundle_runtime.bundle_folder import load_bundle
from fleet_host.command_line import Verbs, add_verb
from fleet_host.log_lines import log_line
from fleet_host.service_manager import this_service_manager

GARBAGE_THRESHOLD = 50_000
"""New containers after which a running coordinator looks for cycles among them; Python's own is 700."""

STANDARD_ERROR = 2

logger = logging.getLogger(__name__)


def add_parser(verbs: Verbs, *parents: argparse.ArgumentParser) -> None:
    """The verb."""
    add_verb(verbs, "run", "Serve the fleet in the foreground until SIGTERM or Ctrl-C.", *parents)


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C. Returns 1 where another coordinator has taken over the
    database, or an older one is in its place, else 0.

    Raises:
        ConfigurationError: what the operator can correct.
        JournalUnavailableError: the database failed before anything was served.
    """
    configuration = load_configuration(options.config)
    faulthandler.enable(STANDARD_ERROR)  # the watchdog's SIGABRT shows where it hung
    manager = this_service_manager()
    stopping = threading.Event()
    _on_signals(stopping.set)
    journal = Journal.open(configuration.journal())
    lease = Lease(journal.engine, [intake_of(configuration.shard), VERSIONS])
    manager.status("waits for its database: another coordinator has it, or it does not answer")
    if not take_over(lease, stopping):
        return 0
    settings = configuration.dashboard
    pages_at = None if settings.port is None else dashboard_port(settings, settings.port)
    metrics = Metrics()
    behind = (
        Evaluator(options.config, {each.task: each.every for each in configuration.evaluations}),
        ClusterFinder(options.config, journal),
        VarietyWatch(options.config, journal.engine, metrics),
    )

    def note_version(task: str, number: int) -> None:
        for each in behind:
            each.note_version(task, number)

    coordinator = _coordinator(configuration, journal, lease, metrics, note_version)
    link = MqttLink(
        configuration.broker,
        configuration.fleet,
        configuration.shard,
        coordinator,
        manager,
        manages_accounts=configuration.broker_accounts is not None,
    )
    signal.set_wakeup_fd(link.wakeup.fileno())
    _on_signals(link.stop)
    if stopping.is_set():
        link.stop()
    relay = RelayChild(options.config, configuration.journal()) if configuration.relay.enabled else None
    dashboard = DashboardChild(options.config, pages_at) if pages_at else None
    # What exists now stays, and later objects have no cycles: garbage collection would only cost time per update.
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)
    tasks = ",".join(coordinator.tasks())
    logger.info(log_line("started", fleet=configuration.fleet, shard=configuration.shard, tasks=tasks))
    manager.ready()
    manager.status("serves")
    try:
        link.run()
    except LeaseLostError as error:
        logger.error(
            log_line("database_taken_over", error=error, remedy="none if that is meant; else stop one of them")
        )
        return 1
    except DatabaseSetBackError as error:
        logger.error(
            log_line("database_set_back", error=error, remedy="start it again: devices then follow the older database")
        )
        return 1
    finally:
        for each in (*behind, relay, dashboard):
            if each is not None:
                each.stop()
    lease.release()
    journal.close()
    return 0


def _coordinator(
    configuration: CoordinatorConfiguration, journal: Journal, lease: Lease, metrics: Metrics, on_version: OnVersion
) -> Coordinator:
    keys = configuration.keys()
    if configuration.metrics.port is not None:
        metrics.watch_database(partial(database_bytes, journal.engine))
        metrics.serve(configuration.metrics.address, configuration.metrics.port)
    return Coordinator(
        journal,
        [load_bundle(task.bundle) for task in configuration.tasks],
        MessageSigner(keys[0], configuration.fleet, configuration.shard, configuration.shards),
        configuration.admission_settings(keys),
        retention=configuration.retention.rule(),
        metrics=metrics,
        on_version=on_version,
        keep_lease=lease.keep,
        manages_accounts=configuration.broker_accounts is not None,
        authorities=authority_sets(configuration.broker.tls.authority) if configuration.broker.tls else (),
    )


def _on_signals(stop: Callable[[], None]) -> None:
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: stop())
