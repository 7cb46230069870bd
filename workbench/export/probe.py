"""Inputs to try a model on before it is exported, and its first run on them."""

import math

import torch
from torch import Tensor

from fleet_protocol.bundle import InputSchema

PROBE_ROWS = 2


def probe_inputs(schema: InputSchema, rows: int = PROBE_ROWS) -> Tensor:
    """f32[rows, *shape]: all values 0, or what the schema's bounds allow next to it."""
    return _filled(schema, min(max(0.0, schema.minimum), schema.maximum), rows)


def extreme_inputs(schema: InputSchema) -> dict[str, Tensor]:
    """The probe, and where they are finite the schema's bounds, by the name of the value that they are full of."""
    bounds = {"minimum": schema.minimum, "maximum": schema.maximum}
    extremes = {f"input.{name}": _filled(schema, bound) for name, bound in bounds.items() if math.isfinite(bound)}
    return {"the value nearest to 0": probe_inputs(schema)} | extremes


def _filled(schema: InputSchema, value: float, rows: int = PROBE_ROWS) -> Tensor:
    return torch.full([rows, *schema.shape], value, dtype=torch.float32)
