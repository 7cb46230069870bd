"""`broker-coordinator run --shards`: a process for each shard, which is started again whenever it has ended."""

import logging
import socket
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from broker_coordinator.commands.kept_child import KeptChild
from broker_coordinator.commands.shard_rules import serving
from broker_coordinator.configuration import load_configuration
from fleet_host.command_line import EXIT_CONFIGURATION
from fleet_host.log_lines import log_line
from fleet_host.service_manager import MICROSECONDS, ServiceManager
from fleet_protocol.errors import ConfigurationError

MODULE: Final = "broker_coordinator.cli"
WATCHDOG_SECONDS: Final = 300.0
"""As in systemd/broker-coordinator.service: without a sign for so long a child is killed. Before it serves it may wait
for its database, or for another process that has its shard, as long as that takes."""
LOOK_SECONDS: Final = 1.0
DATAGRAM_BYTES: Final = 1024

logger = logging.getLogger(__name__)


class ShardChild(KeptChild):
    """The process of one shard, for which this one is the service manager: it hears in `folder` how it is doing."""

    def __init__(
        self, configuration: Path, shard: str, folder: Path, watchdog_seconds: float = WATCHDOG_SECONDS
    ) -> None:
        self.shard = shard
        self.serves = False
        self.was_refused = False
        self._has_served = False
        address = str(folder / "manager")
        self._heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._heard.bind(address)
        self._heard.setblocking(False)
        told = {
            "NOTIFY_SOCKET": address,
            "WATCHDOG_USEC": str(round(watchdog_seconds * MICROSECONDS)),
            "WATCHDOG_PID": "",  # ours names this process
        }
        module = [MODULE, "run", "--config", str(configuration), "--shard", shard]
        super().__init__(f"shard {shard}", module, silence_seconds=watchdog_seconds, variables=told)

    def stop(self) -> None:
        """End the child and the thread."""
        super().stop()
        self._heard.close()

    def has_given_signs(self) -> bool:
        """Since the last look; whoever does not serve yet may be silent."""
        heard = False
        try:
            while said := self._heard.recv(DATAGRAM_BYTES):
                heard = True
                self.serves = self.serves or said == b"READY=1"
        except BlockingIOError:
            pass
        self._has_served = self._has_served or self.serves
        return heard or not self.serves

    def log_started(self, pid: int) -> None:
        """It says itself when it serves."""
        self.serves = False
        logger.info(log_line("shard_started", shard=self.shard, pid=pid))

    def log_stuck(self, pid: int, silent_seconds: float) -> None:
        """It is started again."""
        logger.error(log_line("shard_stuck", shard=self.shard, pid=pid, silent_s=round(silent_seconds)))

    def log_ended(self, status: int | None) -> None:
        """It is started again, unless it has never served and refuses how it is to."""
        self.serves = False
        self.was_refused = status == EXIT_CONFIGURATION and not self._has_served
        remedy = "see the lines above" if self.was_refused else "none if it comes back: its messages wait at the broker"
        logger.error(log_line("shard_ended", shard=self.shard, status=status, remedy=remedy))


def run_shards(file: Path, number: int, stopping: threading.Event, manager: ServiceManager) -> int:
    """Serve the first `number` of the shards that `file` names, 0: all, until `stopping`. Returns 0, or 2 where one of
    them can't begin.

    Raises:
        ConfigurationError: there are not so many, or they can't share their database.
    """
    configuration = serving(load_configuration(file), None, file)
    shards = configuration.served_shards
    if number > len(shards):
        names = ", ".join(f'"{each}"' for each in range(number))
        raise ConfigurationError(
            f"--shards {number}: {file} names {len(shards)}; devices must know them all: let it say shards = [{names}]"
        )
    with tempfile.TemporaryDirectory(prefix="edgeflock-shards-") as folder:
        return _keep(_children(file, shards[: number or None], Path(folder)), stopping, manager)


def _children(file: Path, shards: Sequence[str], folder: Path) -> list[ShardChild]:
    children = []
    for number, shard in enumerate(shards):
        place = folder / str(number)
        place.mkdir()
        children.append(ShardChild(file.absolute(), shard, place))
    return children


def _keep(children: Sequence[ShardChild], stopping: threading.Event, manager: ServiceManager) -> int:
    is_ready = False
    try:
        while not any(each.was_refused for each in children):
            served = [each.shard for each in children if each.serves]
            manager.status(f"serves {len(served)} of {len(children)} shards: {', '.join(served) or 'none yet'}")
            manager.alive()
            if not is_ready and len(served) == len(children):
                is_ready = True
                manager.ready()
            if stopping.wait(LOOK_SECONDS):
                return 0
        return EXIT_CONFIGURATION
    finally:
        with ThreadPoolExecutor(len(children)) as together:
            list(together.map(ShardChild.stop, children))
