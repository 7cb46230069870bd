"""Waits until a coordinator may begin: until no other one works on its database, and that can be written."""

import logging
import math
import threading
import time

from broker_coordinator.storage.database import JournalUnavailableError
from broker_coordinator.storage.lease import Lease
from fleet_host.log_lines import log_line

RETRY_SECONDS = 1.0
"""Between two attempts to take the lease."""

REMINDER_SECONDS = 3600.0
"""How often the log says again that this process only waits."""

logger = logging.getLogger(__name__)


def take_over(lease: Lease, stopping: threading.Event) -> bool:
    """Take the lease once it is free; False where `stopping` was set before. A database that fails is waited for.

    Raises:
        ConfigurationError: a lock file can't be written.
    """
    failed, said_at = False, -math.inf
    while not stopping.is_set():
        try:
            holder = lease.take()
        except JournalUnavailableError as error:
            if not failed:
                logger.error(log_line("journal_unavailable", error=error))
            failed = True
        else:
            if holder is None:
                return True
            failed = False
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
