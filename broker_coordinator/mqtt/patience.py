"""When the link tries again, and what the ends of its connections show."""

import logging
import math
import random
import time
from dataclasses import dataclass

from broker_coordinator.mqtt.outgoing import LARGEST_PACKET_BYTES, Outgoing, PacketTooLargeError
from fleet_host.backoff import delay_seconds
from fleet_host.log_lines import log_line
from fleet_host.publication_limit import HELD_BACK_SECONDS, PublicationLimit
from fleet_host.rate_limit import RateLimit
from fleet_host.short_connections import ShortConnections

FIRST_CEILING_SECONDS = 0.25
LAST_CEILING_SECONDS = 15.0
"""Longest waits before the first and the last attempt to reach the broker, or the database."""

STABLE_SECONDS = 5.0
"""A connection that lasted this long ends the back-off; one that ends at once lets it grow."""

LOG_INTERVAL_SECONDS = 10.0
"""Between two log lines on publications that are too large for the broker."""

REPEAT_SECONDS = 3600.0
"""Between two log lines on connections that end at once."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Backoff:
    """When to try again. `failures` counts attempts since the last success."""

    failures: int = 0
    retry_at: float = 0.0

    def failed(self) -> None:
        """Another attempt has failed: the next one waits longer."""
        uniform = random.random()  # noqa: S311 - jitter, no secret
        delay = delay_seconds(self.failures, uniform, first=FIRST_CEILING_SECONDS, last=LAST_CEILING_SECONDS)
        self.failures += 1
        self.retry_at = time.monotonic() + delay


class BrokerPatience:
    """The back-off of connections to one broker, and the longest packet that is sent to it."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._backoff = Backoff()
        self._limit = PublicationLimit()
        self._logged_sizes = RateLimit(LOG_INTERVAL_SECONDS, 1)
        self._short_ones = ShortConnections()
        self._logged_short_ones = RateLimit(REPEAT_SECONDS, 1)
        self._connected_at = math.inf

    @property
    def retry_at(self) -> float:
        """When to try to connect again."""
        return self._backoff.retry_at

    def failed(self, why: str) -> None:
        """There is no connection; said once until one has lasted."""
        if not self._backoff.failures:
            logger.warning(log_line("broker_unreachable", address=self._address, error=why, remedy="retrying"))
        self._backoff.failed()

    def connected(self, announced: int | None, outgoing: Outgoing) -> None:
        """A connection begins; `announced` is the broker's Maximum Packet Size, if it has said one."""
        self._connected_at = time.monotonic()
        self._limit.connected(announced)
        self.limit(outgoing)
        for error in outgoing.forget_too_large():
            self.note_too_large(error)

    def limit(self, outgoing: Outgoing) -> None:
        """Let it send no longer packets than may be sent now."""
        outgoing.max_packet_bytes = self._limit.maximum_bytes(time.monotonic()) or LARGEST_PACKET_BYTES

    def ended(self, outgoing: Outgoing) -> None:
        """The connection has ended, and `outgoing` holds what was on its way."""
        now = time.monotonic()
        lasted = now - self._connected_at
        if lasted > STABLE_SECONDS:
            self._backoff = Backoff()
        self._connected_at = math.inf
        are_no_accident = self._short_ones.ended(lasted)
        if shown := self._limit.connection_ended(outgoing.on_its_way(now), now):
            logger.error(
                log_line(
                    "publication_ends_connections",
                    bytes=shown,
                    held_back_s=HELD_BACK_SECONDS,
                    remedy="raise the broker's largest packet (Mosquitto: max_packet_size); everything shorter goes on",
                )
            )
        elif are_no_accident and self._logged_short_ones.allows(None, now):
            logger.error(
                log_line(
                    "connections_end_at_once",
                    address=self._address,
                    in_a_row=self._short_ones.in_a_row,
                    remedy="the broker's log says why; most often a second coordinator of this fleet and shard, or"
                    " another program with this one's certificate, takes its connection: stop it",
                )
            )

    def note_too_large(self, error: PacketTooLargeError) -> None:
        """Say what is not sent."""
        if self._logged_sizes.allows(None, time.monotonic()):
            logger.error(
                log_line(
                    "publication_too_large",
                    topic=error.topic,
                    bytes=error.packet_bytes,
                    limit=error.max_packet_bytes,
                    remedy="raise max_packet_size in the broker's configuration",
                )
            )
