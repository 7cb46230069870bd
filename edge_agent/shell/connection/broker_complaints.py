"""What the broker refuses, ignores or ends: said once, with what to check."""

import logging
import time

import aiomqtt
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.reasoncodes import ReasonCode

from fleet_host.log_lines import log_line
from fleet_host.publication_limit import HELD_BACK_SECONDS
from fleet_host.rate_limit import RateLimit
from fleet_host.short_connections import ShortConnections

logger = logging.getLogger(__name__)

REPEAT_SECONDS = 3600.0
"""What stays wrong is said once in this time."""

MAX_COMPLAINTS = 64
"""Remembered at a time."""

SESSION_TAKEN_OVER = 142
"""MQTT 5's reason code of a DISCONNECT."""

CHECK_PERMISSIONS = (
    "compare device, fleet and shard in agent.toml with the name in the certificate or username, and with the broker's"
    " access control list"
)

CHECK_IDENTITY = (
    "compare certificate and key, or username and password_file, in agent.toml with what the broker knows, and"
    " protocol with the one that it speaks"
)


class BrokerComplaints:
    """Log lines about the broker of the client `identifier`, which reads packets of `maximum_packet_bytes`."""

    def __init__(self, identifier: str, maximum_packet_bytes: int) -> None:
        self._identifier = identifier
        self.maximum_packet_bytes = maximum_packet_bytes
        self._short_ones = ShortConnections()
        self._said = RateLimit(REPEAT_SECONDS, MAX_COMPLAINTS)

    def publication_refused(self, topic: str, reason: ReasonCode) -> None:
        """A PUBACK with a failure: the broker has dropped the message."""
        if self._is_new("publication", topic, reason.value):
            logger.error(
                log_line("publication_refused", topic=topic, reason=reason, code=reason.value, remedy=CHECK_PERMISSIONS)
            )

    def subscription_refused(self, topic_filter: str, reason: ReasonCode) -> None:
        """A SUBACK with a failure: nothing of that will be received."""
        if self._is_new("subscription", topic_filter, reason.value):
            logger.error(
                log_line(
                    "subscription_refused",
                    filter=topic_filter,
                    reason=reason,
                    code=reason.value,
                    remedy=CHECK_PERMISSIONS,
                )
            )

    def publication_too_large(self, topic: str, packet_bytes: int, limit: int) -> None:
        """It was not sent: the broker would end the connection."""
        if self._is_new("too large", topic, packet_bytes):
            logger.error(
                log_line(
                    "publication_too_large",
                    topic=topic,
                    bytes=packet_bytes,
                    limit=limit,
                    remedy="raise the broker's largest packet (Mosquitto: max_packet_size), or lower keep_fraction in"
                    " task.toml; it waits, and everything shorter goes on",
                )
            )

    def message_too_large(self, topic: str, packet_bytes: int) -> None:
        """A message came that is too long to be the coordinator's; nothing of it was kept."""
        if self._is_new("message"):
            logger.warning(
                log_line(
                    "message_too_large",
                    topic=topic,
                    bytes=packet_bytes,
                    limit=self.maximum_packet_bytes,
                    remedy="see who may publish there; set the broker's largest packet (Mosquitto: max_packet_size)",
                )
            )

    def connection_ended(self, error: BaseException, suspected_bytes: int | None, *, lasted_seconds: float) -> None:
        """What the end of a connection, or of an attempt that `lasted_seconds` below 0, shows.

        `suspected_bytes` are those of a publication that has ended several.
        """
        if suspected_bytes and self._is_new("ends", suspected_bytes):
            logger.error(
                log_line(
                    "publication_ends_connections",
                    bytes=suspected_bytes,
                    held_back_s=HELD_BACK_SECONDS,
                    remedy="raise the broker's largest packet (Mosquitto: max_packet_size), and let this device publish"
                    " in its access control list; everything shorter goes on",
                )
            )
        if isinstance(error, MqttConnectError) and self._is_new("connect"):
            logger.error(log_line("connection_refused", client=self._identifier, reason=error, remedy=CHECK_IDENTITY))
        if self._short_ones.ended(lasted_seconds) and not suspected_bytes and self._is_new("at once"):
            logger.error(
                log_line(
                    "connections_end_at_once",
                    client=self._identifier,
                    in_a_row=self._short_ones.in_a_row,
                    remedy="the broker's log says why; most often a second device has this name, perhaps on a copied"
                    " card: give it a name, a key and a certificate of its own",
                )
            )
        code = error.rc if isinstance(error, aiomqtt.MqttCodeError) else None
        is_taken_over = isinstance(code, ReasonCode) and code.value == SESSION_TAKEN_OVER
        if is_taken_over and self._is_new("taken over"):
            logger.error(
                log_line(
                    "session_taken_over",
                    client=self._identifier,
                    remedy="a second device has this name, perhaps on a copied card: give it a name, a key and a"
                    " certificate of its own",
                )
            )

    def _is_new(self, *about: str | int) -> bool:
        return self._said.allows(about, time.monotonic())
