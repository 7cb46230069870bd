"""The relay's own connection to the broker: one thread, one loop. A lost connection loses no session, only frames.

What waits to be passed on is bounded by the relay; what was passed on and waits for the broker to read it, here: no
more is taken out of the fair queues meanwhile.
"""

import logging
import time
from typing import Final

from broker_coordinator.distribution.signed_messages import Publication
from broker_coordinator.mqtt.connection import BrokerConnection
from broker_coordinator.mqtt.traffic import acknowledgements, unacknowledged_packet
from fleet_host.broker_settings import BrokerSettings
from fleet_host.log_lines import log_line
from fleet_host.rate_limit import RateLimit
from fleet_protocol.errors import ProtocolError
from fleet_protocol.limits import KIB, MAX_PACKET_OVERHEAD_BYTES, MIB
from fleet_protocol.sessions.frames import MAX_FRAME_MESSAGE_BYTES
from fleet_protocol.topics import relay_filters
from session_relay.relay.core.relay import Relay
from session_relay.relay.directory_watch import DirectoryWatch

MAX_UNSENT_BYTES: Final = 1 * MIB
"""What waits for the broker to read it. It is passed on in the order of the fair queues only up to there."""
PASSED_AT_ONCE_BYTES: Final = 256 * KIB
TICK_SECONDS: Final = 0.5
"""Between two looks at what has waited for too long."""
LOG_SECONDS: Final = 60.0
"""Between two log lines on messages of one sender that are refused."""
SENDERS_LOGGED: Final = 1_000

logger = logging.getLogger(__name__)


class RelayLink:
    """Runs a relay on a broker until `stop`."""

    def __init__(self, settings: BrokerSettings, relay: Relay, watch: DirectoryWatch) -> None:
        self._relay, self._watch = relay, watch
        self._connection = BrokerConnection(
            settings,
            f"relay-{relay.fleet}-{relay.shards[0]}",
            dict.fromkeys((each for shard in relay.shards for each in relay_filters(relay.fleet, shard)), 1),
            self,
            is_durable=False,
            largest_packet_bytes=MAX_PACKET_OVERHEAD_BYTES + MAX_FRAME_MESSAGE_BYTES,
        )
        self.wakeup = self._connection.wakeup
        """A byte written to it ends the loop's sleep (for `signal.set_wakeup_fd`)."""
        self._mqtt5 = settings.protocol == "5"
        self._is_subscribed = False
        self._tick_at = 0.0
        self._logged = RateLimit(LOG_SECONDS, SENDERS_LOGGED)

    def stop(self) -> None:
        """Disconnect; safe to call in a signal handler."""
        self._connection.stop()

    def run(self) -> None:
        """Connect, and pass on until `stop`; waits for a broker that is not there."""
        while not self._connection.is_stopping:
            self._connection.connect()
            self._look()
            self._connection.flush()
            self._connection.wait(0 if self._may_pass_on() else TICK_SECONDS)
            self._read()
            self._publish()
            self._connection.check()
        self._connection.disconnect()
        logger.info(log_line("relay_stopped"))

    def connected(self, *, session_kept: bool) -> None:
        """The broker has accepted the connection; it keeps nothing for a relay."""

    def subscribed(self) -> None:
        """Devices and helpers are heard from now on."""
        self._is_subscribed = True
        logger.info(log_line("relay_connected", address=self._connection.address))

    def disconnected(self) -> None:
        """Nothing is passed on before the next connection has subscribed."""
        self._is_subscribed = False

    def _look(self) -> None:
        """See what the coordinator's database says, and what has waited for too long."""
        now = time.monotonic()
        if (directory := self._watch.take()) is not None:
            self._relay.learn(directory, now)
        if now >= self._tick_at:
            self._tick_at = now + TICK_SECONDS
            self._relay.pass_time(now)

    def _may_pass_on(self) -> bool:
        connection = self._connection.socket
        has_room = connection is not None and connection.unsent_bytes < MAX_UNSENT_BYTES
        return self._is_subscribed and has_room and bool(self._relay.queues.size)

    def _read(self) -> None:
        if (connection := self._connection.socket) is None:
            return
        connection.receive()
        arrived = self._connection.take()
        now = time.monotonic()
        for message in arrived.messages:
            try:
                self._relay.receive(message.topic, message.data, now)
            except ProtocolError as error:
                if self._logged.allows(message.topic, now):
                    logger.warning(log_line("relay_refused", topic=message.topic, error=error))
        if arrived.identifiers:
            connection.send(acknowledgements(arrived.identifiers))
        self._connection.hand_to_paho()

    def _publish(self) -> None:
        connection = self._connection.socket
        if connection is None or not self._is_subscribed:
            return
        self._connection.repeat()
        while self._relay.control_waits and self._connection.room() > 0:
            control = self._relay.next_control()
            self._connection.publish(Publication(control.topic, control.data))
        self._connection.flush()
        while self._may_pass_on():
            for frame in self._relay.next_frames(PASSED_AT_ONCE_BYTES):
                connection.send(unacknowledged_packet(frame.topic, frame.data, mqtt5=self._mqtt5))
            if not self._connection.flush():
                break
