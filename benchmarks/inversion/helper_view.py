"""What of a device's samples reaches its helper: through the device's first blocks, the defences and the codec."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from bundle_runtime.blocks import BlockRunner, Floats
from bundle_runtime.graph import GraphSource
from edge_agent.training.split.outgoing import packed_activations
from fleet_protocol.codec.activations import unpack_rows
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.split_plan import SplitPlan
from fleet_protocol.task_description import TaskDescription


class HelperView:
    """Of the first so many `blocks` of a task with the weights f32[P].

    Where a block runs several times in a pass, `call` is the one that is looked at: of a pair's discriminator 0 are the
    made pictures, 1 the device's own.
    """

    def __init__(
        self,
        task: TaskDescription,
        files: Mapping[str, GraphSource],
        weights: FloatVector,
        blocks: int,
        *,
        rows: int,
        call: int | None = None,
    ) -> None:
        self._runner = BlockRunner(task, files, range(blocks))
        self._weights = [self._runner.weights_of(block, weights) for block in range(blocks)]
        self._rows, self._call = rows, call

    def seen(self, inputs: Floats, plan: SplitPlan, generator: np.random.Generator) -> Tensor:
        """What reaches the helper of samples f32[N, ...], mini-batches of `rows` after each other."""
        parts = []
        for start in range(0, len(inputs), self._rows):
            raw = inputs[start : start + self._rows]
            values = raw
            for block, weights in enumerate(self._weights):
                values = self._runner.forward(block, weights, values, seed=start, raw=raw)
            packed = packed_activations(values, plan, generator)
            received = unpack_rows(packed, plan.activations, len(values), values.shape[1:])
            parts.append(received if self._call is None else received[:, self._call])
        return torch.from_numpy(np.concatenate(parts))
