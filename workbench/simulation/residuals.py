"""The error feedback of a whole fleet in one process: allocated when a device first has some, bounded in total."""

import numpy as np

from edge_agent.training.feedback import StateLayout
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MIB
from fleet_protocol.update_plan import UpdatePlan


def leaves_nothing(plan: UpdatePlan) -> bool:
    """Whether updates hold all that was learned, so that nothing is left for later but by way of exception."""
    return (plan.selection, plan.quantisation, plan.feedback) == ("dense", "float32", "residual")


class Residuals:
    """States of `edge_agent.training.feedback`, by device.

    Their values are kept as a device keeps them where those of all devices fit into `limit_mib`. If only half would,
    they are kept in half the width (float16 for float32, float32 for float64): a rounding that no real device has.
    What stands before the values is never rounded.

    Raises:
        ConfigurationError: not even that fits.
    """

    def __init__(self, devices: int, state_bytes: int, limit_mib: int, layout: StateLayout) -> None:
        needed_mib = devices * state_bytes / MIB
        if needed_mib > 2 * limit_mib:
            raise ConfigurationError(
                f"the residuals of {devices} devices take {needed_mib / 2:.0f} MiB in half their width, more than the"
                f" {limit_mib} MiB allowed; raise --memory-mib, or simulate fewer devices or a smaller model"
            )
        self.rounded = needed_mib > limit_mib
        self.begin_lives = layout.header_bytes > 0
        """Whether the first state of a device tells its lives apart."""
        self._header_bytes = layout.header_bytes
        self._whole = layout.dtype
        self._half = np.dtype(f"f{layout.dtype.itemsize // 2}")
        self._states: dict[int, bytes] = {}

    def get(self, device: int) -> bytes:
        """The state that a device's next round starts from, empty before its first."""
        state = self._states.get(device, b"")
        return self._converted(state, self._half, self._whole) if self.rounded and state else state

    def put(self, device: int, state: bytes) -> None:
        """Store the state after a round; one of zeros alone is as good as none."""
        if not self._header_bytes and not np.frombuffer(state, np.uint8).any():
            self._states.pop(device, None)
            return
        self._states[device] = self._converted(state, self._whole, self._half) if self.rounded else state

    def _converted(self, state: bytes, kept: np.dtype[np.floating], wanted: np.dtype[np.floating]) -> bytes:
        values = np.frombuffer(state, kept, offset=self._header_bytes)
        return state[: self._header_bytes] + values.astype(wanted).tobytes()
