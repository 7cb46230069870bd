"""Which process leads a fleet of several shards: whoever has the lease of its versions, and all try for it."""

import logging
import time
from collections.abc import Callable

from broker_coordinator.serving.takeover import RETRY_SECONDS
from broker_coordinator.storage.lease import VERSIONS, Lease
from fleet_host.log_lines import log_line

logger = logging.getLogger(__name__)


class Leadership:
    """Of a process that has `lease` of its shard. `clock` tells seconds.

    A leader that loses it ends, as whoever loses a lease does: what it has in memory may be behind. It is started again
    and takes in, while another one leads.
    """

    def __init__(self, lease: Lease, shard: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease = lease
        self._shard = shard
        self._clock = clock
        self._try_at = clock()
        self._leader: str | None = None
        self._leads = False

    def may_lead(self) -> bool:
        """Whether this process leads from now on; asks the database now and then.

        Raises:
            LeaseLostError: another process has its shard.
            JournalUnavailableError: the database failed; call again later.
        """
        if self._leads or self._clock() < self._try_at:
            return self._leads
        self._try_at = self._clock() + RETRY_SECONDS
        leader = self._lease.take_also(VERSIONS)
        self._leads = leader is None
        if self._leads:
            logger.info(log_line("leads", shard=self._shard))
        elif leader != self._leader:
            logger.info(log_line("follows", shard=self._shard, leader=leader))
        self._leader = leader
        return self._leads
