"""Inputs to try a model on before it is exported, and a limit on what it does with them."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fleet_protocol.bundle import InputSchema
from workbench.export.layer_context import UnexportableError

PROBE_ROWS = 2
MOST_OPERATORS: Final = 5000
"""In one run of a model: each becomes several of a training step, and takes milliseconds to export."""


def probe_inputs(schema: InputSchema, rows: int = PROBE_ROWS) -> Tensor:
    """f32[rows, *shape]: all values 0, or what the schema's bounds allow next to it."""
    return _filled(schema, min(max(0.0, schema.minimum), schema.maximum), rows)


def extreme_inputs(schema: InputSchema) -> dict[str, Tensor]:
    """The probe, and where they are finite the schema's bounds, by the name of the value that they are full of."""
    bounds = {"minimum": schema.minimum, "maximum": schema.maximum}
    extremes = {f"input.{name}": _filled(schema, bound) for name, bound in bounds.items() if math.isfinite(bound)}
    return {"the value nearest to 0": probe_inputs(schema)} | extremes


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


def _filled(schema: InputSchema, value: float, rows: int = PROBE_ROWS) -> Tensor:
    return torch.full([rows, *schema.shape], value, dtype=torch.float32)
