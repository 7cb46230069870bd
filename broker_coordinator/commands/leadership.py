"""Which process leads a fleet of several shards: whoever has the lease of its versions, and all try for it."""

import logging
import time
from collections.abc import Callable

from broker_coordinator.serving.takeover import RETRY_SECONDS
from broker_coordinator.storage.lease import VERSIONS, Lease, LeaseLostError
from fleet_host.log_lines import log_line

BROKERLESS_SECONDS = 30.0
"""How long a leader does without a connection to its broker."""

logger = logging.getLogger(__name__)


class Leadership:
    """Of a process that has `lease` of its shard. `clock` tells seconds.

    A leader that loses it ends, as whoever loses a lease does: what it has in memory may be behind. It is started again
    and takes in, while another one leads. So does one whose broker is away, as nobody would hear of its versions.
    """

    def __init__(self, lease: Lease, shard: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.has_broker: Callable[[], bool] = lambda: False
        """Whether it is connected: set once there is a link."""
        self._lease = lease
        self._shard = shard
        self._clock = clock
        self._broker_seen_at = clock()
        self._try_at = clock()
        self._leader: str | None = None
        self._leads = False

    def may_lead(self) -> bool:
        """Whether this process leads from now on; asks the database now and then.

        Raises:
            LeaseLostError: another process has its shard, or this one has led without a broker for too long.
            JournalUnavailableError: the database failed; call again later.
        """
        now = self._clock()
        if self.has_broker():
            self._broker_seen_at = now
        if self._leads:
            self._require_broker(now)
            return True
        if self._broker_seen_at < now or now < self._try_at:
            return False
        self._try_at = now + RETRY_SECONDS
        leader = self._lease.take_also(VERSIONS)
        self._leads = leader is None
        if self._leads:
            logger.info(log_line("leads", shard=self._shard))
        elif leader != self._leader:
            logger.info(log_line("follows", shard=self._shard, leader=leader))
        self._leader = leader
        return self._leads

    def _require_broker(self, now: float) -> None:
        if now - self._broker_seen_at > BROKERLESS_SECONDS:
            raise LeaseLostError(
                f"{VERSIONS}: given up by shard {self._shard}, whose broker has been away for {BROKERLESS_SECONDS:g} s:"
                " another shard's may be there"
            )
