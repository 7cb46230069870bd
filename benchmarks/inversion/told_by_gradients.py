"""Classes told by gradients: a discriminator's projection adds the class's own vector to what it sends back.

The helper tries every class on the device's last blocks, whose weights the version has, and takes the one whose
gradient points most nearly where the device's does (cf. Li et al. 2022, "Label leakage and protection in two-party
split learning").
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bundle_runtime.blocks import BlockRunner, Floats
from bundle_runtime.graph import GraphSource
from edge_agent.training.engine import Rates
from edge_agent.training.split.outgoing import packed_gradient
from fleet_protocol.codec.activations import unpack_rows
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.split_plan import SplitPlan
from fleet_protocol.task_description import TaskDescription

REAL = 1
"""Of a discriminator's calls: made pictures first, then the device's own."""
PART = "discriminator"
RATES = Rates(1e-3)


class GradientsOfDevice:
    """What a device answers the activations of its last blocks from the one of number `first` on with: a gradient."""

    def __init__(
        self, task: TaskDescription, files: Mapping[str, GraphSource], plan: SplitPlan, weights: FloatVector, first: int
    ) -> None:
        self._plan, self._first = plan, first
        self._runner = BlockRunner(task, files, range(len(plan.blocks)))
        self._weights = [self._runner.weights_of(block, weights) for block in range(len(plan.blocks))]

    def sent(self, raw: Floats, seed: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Of a mini-batch f32[N, 785]: what the helper gave, and the gradient that it receives, of real pictures."""
        values, given = raw, []
        for block, weights in enumerate(self._weights[:-1]):
            given.append(values)
            values = self._runner.forward(block, weights, values, seed=seed, raw=raw)
        last = len(self._weights) - 1
        made = self._runner.last(
            self._weights[last],
            self._runner.new_state(last),
            values,
            np.zeros((len(raw), 0), np.float32),
            seed=seed,
            rates=RATES,
            part=PART,
            raw=raw,
        )
        gradient = made.input_gradient
        for block in reversed(range(self._first, last)):
            state = self._runner.new_state(block)
            passed = self._runner.backward(
                block, self._weights[block], state, given[block], gradient, seed=seed, rates=RATES, raw=raw
            )
            assert passed.input_gradient is not None  # only the first block has none
            gradient = passed.input_gradient
        packed = packed_gradient(gradient, self._plan, generator)
        received = unpack_rows(packed, self._plan.gradients, len(gradient), gradient.shape[1:])
        answered = (*given, values)[self._first]
        return torch.from_numpy(answered[:, REAL].copy()), torch.from_numpy(received[:, REAL].copy())


def told_classes(discriminator: nn.Module, names: list[str], given: Tensor, gradient: Tensor) -> NDArray[np.int64]:
    """The likeliest class of each row, i64[N], by the device's blocks of these names, the last of which is told it."""
    *further, last = (discriminator.get_submodule(name).train() for name in names)
    classes = len(last.get_parameter("embedding.weight"))
    likeness = []
    for tried in range(classes):
        features = given.clone().requires_grad_()
        values = nn.Sequential(*further)(features)
        scores = last(values, torch.full((len(given),), tried))
        (expected,) = torch.autograd.grad(functional.softplus(-scores).sum(), features)
        likeness.append(functional.cosine_similarity(expected.flatten(1), gradient.flatten(1)))
    return torch.stack(likeness).argmax(dim=0).numpy()
