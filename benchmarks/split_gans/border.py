"""Between a device's blocks and those of its helper: what crosses is packed as sessions pack it, and counted."""

from collections.abc import Sequence

import numpy as np

from benchmarks.session_messages import message_bytes
from bundle_runtime.blocks import Floats
from fleet_protocol.codec.activations import pack_activations, pack_gradient, unpack_rows
from fleet_protocol.split_plan import WireFormat

COUNTED = 25
"""Of so many steps the first is counted."""


class Border:
    """The bytes that have crossed in the `steps` that were counted: `up` to the helper, `down` from it."""

    def __init__(self, own: Sequence[bool], wire: WireFormat) -> None:
        """`own` says of each block whether the device holds it."""
        self._own, self._wire = own, wire
        self._draws = np.random.default_rng(0)  # a gradient that travels whole draws nothing
        self._counts = False
        self.steps = self.up = self.down = 0

    def begin(self, step: int) -> None:
        """What crosses from now on is of the step of this number."""
        self._counts = step % COUNTED == 0
        self.steps += self._counts

    def forward(self, block: int, values: Floats) -> Floats:
        """What a block gives, as the next one gets it."""
        if not self._looks_at(block):
            return values
        packed = pack_activations(values, self._wire)
        self._count(message_bytes("forward", len(values), self._wire, packed), up=self._own[block])
        return unpack_rows(packed, self._wire, len(values), values.shape[1:])

    def back(self, block: int, gradient: Floats) -> Floats:
        """The gradient by what a block gives, as the block gets it."""
        if not self._looks_at(block):
            return gradient
        packed = pack_gradient(gradient, self._wire, "dense", 1.0, self._draws)
        self._count(message_bytes("backward", len(gradient), self._wire, packed), up=self._own[block + 1])
        return unpack_rows(packed, self._wire, len(gradient), gradient.shape[1:])

    def _looks_at(self, block: int) -> bool:
        """What crosses as float32 comes back bit for bit: it is packed to be counted alone."""
        return self._own[block] is not self._own[block + 1] and (self._counts or self._wire != "float32")

    def _count(self, taken: int, *, up: bool) -> None:
        if not self._counts:
            return
        if up:
            self.up += taken
        else:
            self.down += taken
