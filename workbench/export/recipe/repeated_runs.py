"""Whether a model gives the same again: what it counts, remembers or draws by itself would be a constant in a graph."""

from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from fleet_protocol.errors import ConfigurationError
from workbench.export.layers.module_calls import described, evaluating, first_apart, module_calls

REMEDY = (
    "keep nothing between calls and draw with torch.rand or torch.randn, which follow the seed of the step, not with"
    " random, numpy or the time; nn.BatchNorm1d with affine=False tracks a mean"
)


def check_repeats(module: nn.Module, inputs: Tensor, path: Path) -> None:
    """Run `module` twice on inputs f32[B, *shape], in training and in evaluation mode, with the same seed.

    Raises:
        ConfigurationError: naming the submodule that gives something else the second time; `path` is the model's file.
    """
    for mode in (nullcontext(), evaluating(module)):
        try:
            with mode:
                first, second = (module_calls(module, inputs) for _ in range(2))
        except Exception:  # what can't be exported, the export explains
            return
        if (name := first_apart(first, second, _identical)) is not None:
            raise ConfigurationError(
                f"{path}: {described(module, name)} gives something else when it is called with the same again, and a"
                f" graph always gives the same; {REMEDY}"
            )


def _identical(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
