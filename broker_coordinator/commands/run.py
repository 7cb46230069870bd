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
from broker_coordinator.commands.beside_versions import BesideVersions
from broker_coordinator.commands.leadership import Leadership
from broker_coordinator.commands.shard_children import run_shards
from broker_coordinator.commands.shard_rules import require_no_masks, serving
from broker_coordinator.configuration import load_configuration
from broker_coordinator.distribution.signed_messages import MessageSigner
from broker_coordinator.mqtt.link import MqttLink
from broker_coordinator.serving.coordinator import Coordinator
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.serving.takeover import take_over
from broker_coordinator.storage.database import DatabaseSetBackError, JournalUnavailableError
from broker_coordinator.storage.database_size import database_bytes
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.lease import HANGING_SECONDS, VERSIONS, Lease, LeaseLostError, intake_of
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle_folder import load_bundle
from fleet_host.broker_settings import MAX_PORT
from fleet_host.command_line import Verbs, add_verb, name_of, whole_number
from fleet_host.log_lines import log_line
from fleet_host.service_manager import ServiceManager, this_service_manager
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_SHARDS

GARBAGE_THRESHOLD = 50_000
"""New containers after which a running coordinator looks for cycles among them; Python's own is 700."""

STANDARD_ERROR = 2

logger = logging.getLogger(__name__)


def add_parser(verbs: Verbs, *parents: argparse.ArgumentParser) -> None:
    """The verb."""
    verb = add_verb(verbs, "run", "Serve the fleet in the foreground until SIGTERM or Ctrl-C.", *parents)
    which = verb.add_mutually_exclusive_group()
    which.add_argument(
        "--shard", type=name_of("shard"), metavar="NAME", help="serve this shard in the place of the configured one"
    )
    which.add_argument(
        "--shards",
        type=whole_number(1, MAX_SHARDS),
        nargs="?",
        const=0,
        metavar="N",
        help="serve the first N of the configured shards, without N all of them: a process for each, started again"
        " whenever it has ended",
    )
    verb.add_argument(
        "--metrics-port", type=whole_number(1, MAX_PORT), metavar="N", help="in the place of the configured port"
    )


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C. Returns 1 where another coordinator has taken over the
    database, or an older one is in its place, or that of one of several shards is away; 2 where one of them can't
    begin, else 0.

    Raises:
        ConfigurationError: what the operator can correct.
        JournalUnavailableError: the database failed before anything was served.
    """
    faulthandler.enable(STANDARD_ERROR)  # the watchdog's SIGABRT shows where it hung
    manager = this_service_manager()
    stopping = threading.Event()
    _on_signals(stopping.set)
    if options.shards is not None:
        if options.metrics_port:
            raise ConfigurationError("--metrics-port is of one shard: with --shards, each has a port of its own")
        return run_shards(options.config, options.shards, stopping, manager)
    try:
        return _serve(options, manager, stopping)
    except (ConfigurationError, JournalUnavailableError) as error:
        if options.shard is None or not _is_of_database(error):
            raise
        logger.error(log_line("journal_unavailable", error=error))
        return 1


def _is_of_database(error: Exception) -> bool:
    """Whether it is the database that is away, which is waited for: a restart comes too early, or not at all."""
    return isinstance(error, JournalUnavailableError) or isinstance(error.__cause__, JournalUnavailableError)


def _serve(options: argparse.Namespace, manager: ServiceManager, stopping: threading.Event) -> int:
    configuration = serving(load_configuration(options.config), options.shard, options.config)
    keys = configuration.keys()
    bundles = [load_bundle(task.bundle) for task in configuration.tasks]
    journal = Journal.open(configuration.journal())
    shards = configuration.served_shards
    jobs = [intake_of(configuration.shard), *([VERSIONS] if len(shards) == 1 else [])]
    lease = Lease(journal.engine, jobs, HANGING_SECONDS)
    manager.status("waits for its database: another coordinator has it, or it does not answer")
    if not take_over(lease, stopping):
        return 0
    if len(shards) > 1:
        stored = [bundle.description for _, bundle in TaskRegistry(journal.engine).served().readable]
        require_no_masks([*stored, *(bundle.description for bundle in bundles)], shards)
    leadership = Leadership(lease, configuration.shard) if len(shards) > 1 else None
    metrics = Metrics()
    if port := options.metrics_port or configuration.metrics_port:
        metrics.watch_database(partial(database_bytes, journal.engine))
        metrics.serve(configuration.metrics.address, port)
    beside = BesideVersions(options.config, configuration, journal, metrics)
    coordinator = Coordinator(
        journal,
        bundles,
        MessageSigner(keys[0], configuration.fleet, configuration.shard, configuration.shards),
        configuration.admission_settings(keys),
        retention=configuration.retention.rule(),
        metrics=metrics,
        on_version=beside.note_version,
        keep_lease=lease.keep,
        confirm_lease=lease.confirm,
        may_lead=leadership.may_lead if leadership else lambda: True,
        on_lead=beside.start,
        manages_accounts=configuration.broker_accounts is not None,
        authorities=authority_sets(configuration.broker.tls.authority) if configuration.broker.tls else (),
    )
    link = MqttLink(
        configuration.broker,
        configuration.fleet,
        configuration.shard,
        coordinator,
        manager,
        manages_accounts=configuration.broker_accounts is not None,
    )
    if leadership:
        leadership.has_broker = lambda: link.is_connected
    signal.set_wakeup_fd(link.wakeup.fileno())
    _on_signals(link.stop)
    if stopping.is_set():
        link.stop()
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
        beside.stop()
    lease.release()
    journal.close()
    return 0


def _on_signals(stop: Callable[[], None]) -> None:
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: stop())
