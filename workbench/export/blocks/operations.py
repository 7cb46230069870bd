"""How many floating point operations a block's forward pass takes."""

from typing import Any

import torch
from torch import fx
from torch.utils.flop_counter import FlopCounterMode

from bundle_runtime.samples import Samples
from workbench.export.blocks.block_graphs import forward_inputs
from workbench.export.blocks.block_steps import BlockSteps
from workbench.export.blocks.division import Division
from workbench.export.conversion.tracing import EXAMPLE_BATCH, trace
from workbench.export.layers.recurrence import REPEAT, STEPS


def forward_flops(division: Division, block: int, samples: Samples) -> int:
    """For one sample, multiplications and additions of matrix products and convolutions: all else is little beside
    them. They are counted as the operators of a trace run, which holds nothing of other blocks.

    `samples` are `EXAMPLE_BATCH` or more that the model takes.
    """
    division.recipe.set_training(True)
    entries = forward_inputs(division, block)
    traced = trace(BlockSteps(division, block, [entry.name for entry in entries]).forward(), entries)
    counter = _Counter(traced)
    given = {"inputs": torch.from_numpy(samples.inputs[:EXAMPLE_BATCH])}
    if samples.labels.size:
        given["labels"] = torch.from_numpy(samples.labels[:EXAMPLE_BATCH])
    counter.run(*(given.get(entry.name, entry.example()) for entry in entries))
    return counter.count // EXAMPLE_BATCH


class _Counter(fx.Interpreter):
    """Runs a trace and adds up the operations."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.count = 0

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator. A recurrent layer runs its step as often as its sequence is long."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            result = super().call_function(target, args, kwargs)
            repeats = 1
            if target is REPEAT:  # whose insides the counter does not see
                step, states, sequences, fixed, _ = args
                STEPS[step](states, [sequence[0] for sequence in sequences], fixed)
                repeats = sequences[0].shape[0]
        self.count += counter.get_total_flops() * repeats
        return result
