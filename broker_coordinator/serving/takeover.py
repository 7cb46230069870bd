"""Waits until a coordinator may begin: until no other one works on its database."""

import logging
import math
import threading
import time

from broker_coordinator.storage.lease import Lease
from fleet_host.log_lines import log_line

RETRY_SECONDS = 1.0
"""Between two attempts to take the lease."""

REMINDER_SECONDS = 3600.0
"""How often the log says again that this process only waits."""

logger = logging.getLogger(__name__)


def take_over(lease: Lease, stopping: threading.Event) -> bool:
    """Take the lease once it is free; False where `stopping` was set before.

    Raises:
        JournalUnavailableError: the database failed.
        ConfigurationError: a lock file can't be written.
    """
    said_at = -math.inf
    while not stopping.is_set():
        holder = lease.take()
        if holder is None:
            return True
        if (now := time.monotonic()) >= said_at + REMINDER_SECONDS:
            said_at = now
            logger.warning(
                log_line(
                    "waiting_for_database",
                    held=holder,
                    remedy="none if this process is to take over when that one ends; else stop one of them",
                )
            )
        stopping.wait(RETRY_SECONDS)
    return False
