"""The error feedback of a whole fleet in one process: made when a device first has some, bounded in all."""

import numpy as np

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MIB


class Residuals:
    """States of `edge_agent.training.feedback`, by device.

    As float32, as a device keeps them, where those of all devices fit into `limit_mib`. If only half would, they are
    kept as float16: a rounding that no real device has.

    Raises:
        ConfigurationError: not even that fits.
    """

    def __init__(self, devices: int, state_bytes: int, limit_mib: int) -> None:
        needed_mib = devices * state_bytes / MIB
        if needed_mib > 2 * limit_mib:
            raise ConfigurationError(
                f"the residuals of {devices} devices take {needed_mib / 2:.0f} MiB as float16, more than the"
                f" {limit_mib} MiB allowed; raise --memory-mib, or simulate fewer devices or a smaller model"
            )
        self.rounded = needed_mib > limit_mib
        self._states: dict[int, bytes] = {}

    def get(self, device: int) -> bytes:
        """The state that a device's next round starts from, empty before its first."""
        state = self._states.get(device, b"")
        return np.frombuffer(state, np.float16).astype(np.float32).tobytes() if self.rounded else state

    def put(self, device: int, state: bytes) -> None:
        """Keep what a round has left."""
        self._states[device] = np.frombuffer(state, np.float32).astype(np.float16).tobytes() if self.rounded else state
