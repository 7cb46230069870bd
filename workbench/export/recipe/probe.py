"""Inputs to try a model on before it is exported, and a limit on what it does with them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fleet_protocol.sample_rules import LARGEST_FLOAT32, ValueRule, input_rule
from workbench.export.layers.layer_context import UnexportableError
from workbench.export.recipe.task_file import TaskFile

PROBE_ROWS = 2
MOST_OPERATORS: Final = 5000
"""In one run of a model: each becomes several of a training step, and takes milliseconds to export."""


def probe_inputs(task: TaskFile, rows: int = PROBE_ROWS) -> Tensor:
    """f32[rows, *shape]: all values 0, or what the schema's bounds allow next to it."""
    return _filled(task, _near_zero, rows)


def extreme_inputs(task: TaskFile) -> dict[str, Tensor]:
    """The probe, and samples full of the schema's bounds, by what they are full of; 0 where there is no bound."""
    return {
        "the value nearest to 0": probe_inputs(task),
        "input.minimum": _filled(task, lambda rule: rule.lowest if _is_bound(rule.lowest) else _near_zero(rule)),
        "input.maximum": _filled(task, lambda rule: rule.highest if _is_bound(rule.highest) else _near_zero(rule)),
    }


class OperatorLimit(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's own class has no types
    """Stops a model that runs more than `MOST_OPERATORS` operators in the block."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # as above
        self._count = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Count the operator and run it.

        Raises:
            UnexportableError: it is one too many.
        """
        self._count += 1
        if self._count > MOST_OPERATORS:
            raise UnexportableError(
                f"it runs more than MOST_OPERATORS ({MOST_OPERATORS}) operators, all of which a step would hold",
                "put torch.cumsum, a convolution, nn.GRU or nn.LSTM in place of its loop",
            )
        return func(*args, **(kwargs or {}))


def _near_zero(rule: ValueRule) -> float:
    return min(max(0.0, rule.lowest), rule.highest)


def _is_bound(value: float) -> bool:
    return abs(value) < LARGEST_FLOAT32


def _filled(task: TaskFile, value: Callable[[ValueRule], float], rows: int = PROBE_ROWS) -> Tensor:
    """Each input full of a value that follows from its rule; several side by side, as a row."""
    parts = [
        torch.full([rows, *schema.shape], value(input_rule(schema)), dtype=torch.float32)
        for schema in task.each_input.values()
    ]
    return torch.cat([part.flatten(1) for part in parts], dim=1) if task.inputs else parts[0]
