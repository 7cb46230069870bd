"""`python -m session_relay.relay CONFIG`: the relay of the coordinator that this coordinator.toml is of.

`broker-coordinator run` starts it, and again when it ends (`broker_coordinator/commands/relay_child.py`).
"""

import argparse
import gc
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from broker_coordinator.configuration import load_configuration
from broker_coordinator.storage.database import JournalUnavailableError, open_database
from fleet_host.log_lines import configure_logging, log_line
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MIB
from session_relay.relay.core.limits import RelayLimits
from session_relay.relay.core.relay import Relay
from session_relay.relay.directory_source import DirectorySource
from session_relay.relay.directory_watch import DirectoryWatch
from session_relay.relay.link import RelayLink
from session_relay.relay.metrics import serve_metrics
from session_relay.relay.signs_of_life import SignsOfLife

GARBAGE_THRESHOLD = 50_000
"""New containers after which cycles are looked for; frames have none."""

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Pass on until SIGTERM. Returns 0, or 2 for an error that the operator can correct."""
    parser = argparse.ArgumentParser(prog="session_relay.relay", description="Relays sessions of split learning.")
    parser.add_argument("configuration", type=Path, help="the coordinator's coordinator.toml")
    parser.add_argument("--signs", action="store_true", help="give signs of life on standard output")
    options = parser.parse_args(arguments)
    configure_logging()
    try:
        _run(options.configuration, gives_signs=options.signs)
    except (ConfigurationError, JournalUnavailableError) as error:
        logger.error(log_line("relay_failed", error=error))
        return 2
    return 0


def _run(file: Path, *, gives_signs: bool) -> None:
    configuration = load_configuration(file)
    settings = configuration.relay
    engine = open_database(configuration.journal(), read_only=True)
    source = DirectorySource(engine)
    limits = RelayLimits(settings.sessions, settings.sessions_of_device, settings.backlog_mebibytes * MIB)
    relay = Relay(configuration.keys()[0], configuration.fleet, configuration.served_shards, source.read(), limits)
    if settings.metrics_port is not None:
        serve_metrics(relay, configuration.metrics.address, settings.metrics_port)
    watch = DirectoryWatch(source)
    link = RelayLink(configuration.broker, relay, watch)
    signal.set_wakeup_fd(link.wakeup.fileno())
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: link.stop())
    if gives_signs:
        SignsOfLife(relay)
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)
    link.run()
    watch.stop()
    engine.dispose()


if __name__ == "__main__":
    sys.exit(main())
