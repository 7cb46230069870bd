"""Between a device's blocks and those of its helper: what crosses is packed as sessions pack it, and counted."""

from collections.abc import Sequence

import numpy as np

from benchmarks.session_messages import message_bytes
from bundle_runtime.blocks import Floats
from edge_agent.training.split.outgoing import packed_activations
from fleet_protocol.codec.activations import pack_activations, pack_gradient, unpack_rows
from fleet_protocol.split_plan import Passing

COUNTED = 25
"""Of so many steps the first is counted."""


class Border:
    """The bytes that have crossed in the `steps` that were counted: `up` to the helper, `down` from it."""

    def __init__(self, own: Sequence[bool], plan: Passing, seed: int) -> None:
        """`own` says of each block whether the device holds it, `plan` how values pass; `seed` is of a plan's noise."""
        self._own, self._plan = own, plan
        self._draws = np.random.default_rng(seed)
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
        wire, leaves_device = self._plan.activations, self._own[block]
        packed = (
            packed_activations(values, self._plan, self._draws) if leaves_device else pack_activations(values, wire)
        )
        self._count(message_bytes("forward", len(values), wire, packed), up=leaves_device)
        return unpack_rows(packed, wire, len(values), values.shape[1:])

    def back(self, block: int, gradient: Floats) -> Floats:
        """The gradient by what a block gives, as the block gets it."""
        if not self._looks_at(block):
            return gradient
        wire = self._plan.gradients
        packed = pack_gradient(gradient, wire, "dense", 1.0, self._draws)
        self._count(message_bytes("backward", len(gradient), wire, packed), up=self._own[block + 1])
        return unpack_rows(packed, wire, len(gradient), gradient.shape[1:])

    def _looks_at(self, block: int) -> bool:
        """What crosses as float32 without noise comes back bit for bit: it is packed to be counted alone."""
        changes = (
            self._plan.activations != "float32" or self._plan.gradients != "float32" or self._plan.activation_noise
        )
        return self._own[block] is not self._own[block + 1] and bool(self._counts or changes)

    def _count(self, taken: int, *, up: bool) -> None:
        if not self._counts:
            return
        if up:
            self.up += taken
        else:
            self.down += taken
