"""What passes between a device and its helper in a step of the pair, as messages of the shipped codec.

The steps are those of a device and its helper, taken by torch: a pass for the discriminator and one for the generator,
each forward through all blocks and all the way back. What stands at the points is packed as they pack it; nothing is
encrypted or sent, and a frame's overhead is counted.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.session_messages import message_bytes
from fleet_protocol.codec.activations import pack_activations, pack_gradient
from fleet_protocol.split_plan import Cut, SplitPlan, WireFormat
from workbench.export.blocks.points import caught, joined_runs

Floats = NDArray[np.float32]
BETAS: Final = (0.9, 0.999)


class PairModule(Protocol):
    """The recipe's `model.py`."""

    def build(self) -> nn.Module:
        """The pair."""

    def loss_discriminator(self, outputs: Any) -> Tensor:
        """Of each sample."""

    def loss_generator(self, outputs: Any) -> Tensor:
        """Of each sample."""


@dataclass(frozen=True, slots=True)
class AtPoint:
    """What one pass has at the point behind a block: float32 [N, *shape] each."""

    activations: Floats
    gradient: Floats


Pass = Sequence[AtPoint]
"""By the number of the block."""


@dataclass(frozen=True, slots=True)
class Formats:
    """How both kinds travel."""

    activations: WireFormat
    gradients: WireFormat


class TrainedPair:
    """The pair while it trains as its recipe says, both parts in turn."""

    def __init__(self, model: PairModule, points: Sequence[str], rate: float, seed: int) -> None:
        torch.manual_seed(seed)
        self._model, self._points = model, points
        self._pair = model.build()
        self._turns = [
            (loss, torch.optim.Adam(self._pair.get_submodule(part).parameters(), rate, BETAS))
            for part, loss in (("discriminator", model.loss_discriminator), ("generator", model.loss_generator))
        ]

    def step(self, pictures: Floats, digits: Floats) -> Iterator[Pass]:
        """One step on f32[N, 1, 28, 28] and f32[N, 1]; what its passes have at the points."""
        given = torch.from_numpy(pictures), torch.from_numpy(digits)
        for loss_of, optimiser in self._turns:
            with ExitStack() as stack:
                found = [stack.enter_context(caught(self._pair, point)) for point in self._points]
                outputs = self._pair(*given)
            for tensor in (each for runs in found for each in runs):
                tensor.retain_grad()
            self._pair.zero_grad()
            loss_of(outputs).mean().backward()  # type: ignore[no-untyped-call]
            yield [AtPoint(_values(runs), _gradients(runs)) for runs in found]
            optimiser.step()


def bytes_of_cuts(plan: SplitPlan, passes: Sequence[Pass], formats: Formats) -> dict[str, tuple[int, int]]:
    """Of a step with each cut of the plan: bytes to the helper and back."""
    messages = [[_message_bytes(at, formats) for at in each] for each in passes]
    return {cut.name: _bytes_of(cut, messages) for cut in plan.cuts}


def _bytes_of(cut: Cut, messages: Sequence[Sequence[tuple[int, int]]]) -> tuple[int, int]:
    up = down = 0
    for of_points in messages:
        for first, end in cut.helper:
            (front, front_gradient), (back, back_gradient) = of_points[first - 1], of_points[end - 1]
            up += front + back_gradient
            down += back + front_gradient
    return up, down


def _message_bytes(at: AtPoint, formats: Formats) -> tuple[int, int]:
    """Of a message with the activations, and of one with the gradient."""
    generator = np.random.default_rng(0)  # a gradient that travels whole draws nothing
    activations = pack_activations(at.activations, formats.activations)
    gradient = pack_gradient(at.gradient, formats.gradients, "dense", 1.0, generator)
    rows = len(at.activations)
    return message_bytes("forward", rows, formats.activations, activations), message_bytes(
        "backward", rows, formats.gradients, gradient
    )


def _values(runs: list[Tensor]) -> Floats:
    values: Floats = joined_runs(runs).detach().numpy()
    return values


def _gradients(runs: list[Tensor]) -> Floats:
    """Of what the loss does not depend on, zeros."""
    return _values([torch.zeros_like(each) if each.grad is None else each.grad for each in runs])
