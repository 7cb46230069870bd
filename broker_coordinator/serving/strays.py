"""Says in the log that a device speaks in another shard than its own: what it sends counts all the same."""

import logging
from collections.abc import Iterable
from functools import lru_cache

from broker_coordinator.admission.decisions import Accepted
from broker_coordinator.admission.settings import AdmissionSettings
from fleet_host.log_lines import log_line
from fleet_host.rate_limit import RateLimit
from fleet_protocol.shards import shard_of

LOG_INTERVAL_SECONDS = 600.0
"""After shards were changed, whole fleets may be on their way: the log says that there are some."""
DEVICES_REMEMBERED = 10_000

logger = logging.getLogger(__name__)


class Strays:
    """A line now and then, for whoever keeps reading of the same device."""

    def __init__(self, settings: AdmissionSettings) -> None:
        self._settings = settings
        self._allowed = RateLimit(LOG_INTERVAL_SECONDS, 1)

    def look_at(self, accepted: Iterable[Accepted], now: float) -> None:
        """Take note of what a batch brought; `now` is in seconds on any one clock."""
        if len(self._settings.shards) < 2:
            return
        for each in accepted:
            own = _own_shard(each.device, self._settings.shards)
            if own != self._settings.shard and self._allowed.allows("stray", now):
                logger.warning(
                    log_line(
                        "device_in_other_shard",
                        device=each.device,
                        shard=self._settings.shard,
                        belongs_to=own,
                        remedy="none if shards were changed a short time ago: it moves before its next round; else"
                        " update edgeflock on the device",
                    )
                )


@lru_cache(DEVICES_REMEMBERED)
def _own_shard(device: str, shards: tuple[str, ...]) -> str:
    return shard_of(device, shards)
