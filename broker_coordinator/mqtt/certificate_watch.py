"""Says once a day which of the broker's certificates end before long: without them no device can connect."""

import contextlib
import logging
import math
import ssl
from collections.abc import Callable, Mapping

from fleet_host.broker_settings import BrokerSettings
from fleet_host.certificates import DAY_SECONDS, days_left, read_authorities
from fleet_host.log_lines import log_line
from fleet_protocol.errors import ConfigurationError

BROKER_DAYS = 60.0
AUTHORITY_DAYS = 180.0
"""Before the end of a certificate it is said. Every device has to hear of another authority in that time."""

logger = logging.getLogger(__name__)


class CertificateWatch:
    """Looks at the certificate that the broker shows, and at those of the authorities in `settings`."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        self._looked_at = -math.inf

    def look(self, shown_by_broker: Callable[[], Mapping[str, object] | None], now: float) -> None:
        """`shown_by_broker` gives its certificate as ssl describes it, and None without TLS; `now` is in seconds since
        1970.
        """
        if abs(now - self._looked_at) < DAY_SECONDS:
            return
        self._looked_at = now
        if (shown := shown_by_broker()) is None:
            return
        ends = ssl.cert_time_to_seconds(str(shown["notAfter"]))
        _say("broker", (ends - now) / DAY_SECONDS, BROKER_DAYS, "broker-coordinator setup --host NAME makes another")
        tls = self._settings.tls
        with contextlib.suppress(ConfigurationError):  # those of the whole web, say: nobody here renews them
            for certificate in read_authorities(tls.authority) if tls else ():
                remedy = "broker-coordinator authority renew (docs/operating.md)"
                _say("authority", days_left(certificate, now), AUTHORITY_DAYS, remedy)


def _say(whose: str, days: float, least: float, remedy: str) -> None:
    if days < least:
        logger.warning(log_line("certificate_ends", of=whose, days_left=int(days), remedy=remedy))
