"""Says in the log that a device waits for an operator's approval."""

import logging
from collections.abc import Iterable

from broker_coordinator.admission.fleet_view import Device, DeviceState, FleetView
from fleet_host.log_lines import log_line
from fleet_host.rate_limit import RateLimit

LOG_INTERVAL_SECONDS = 10.0
"""An outsider can enrol under any number of names: the log says that there are some, `devices list` has all."""

logger = logging.getLogger(__name__)


class Newcomers:
    """A line for each device that enrols for the first time and awaits approval, and few lines in all."""

    def __init__(self) -> None:
        self._allowed = RateLimit(LOG_INTERVAL_SECONDS, 1)

    def look_at(self, devices: Iterable[Device], known: FleetView, now: float) -> None:
        """Take note of devices that a batch has changed; `known` is from before it. `now` is in seconds."""
        for device in devices:
            is_new = device.state is DeviceState.PENDING and device.key_id not in known.devices
            if is_new and self._allowed.allows("newcomer", now):
                logger.warning(
                    log_line(
                        "device_awaits_approval",
                        device=device.name,
                        key_id=device.key_id.hex(),
                        remedy=f"broker-coordinator devices approve {device.name} {device.key_id.hex()}, if"
                        " `edge-agent key` prints that id on the device",
                    )
                )
