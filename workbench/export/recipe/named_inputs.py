"""Several inputs: a module whose forward() takes each by its name, called with the row that a sample is stored as."""

import inspect
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sample_schema import InputSchema, runs


def take_rows(module: nn.Module, inputs: Mapping[str, InputSchema], path: Path) -> None:
    """Let `module` be called with f32[B, values of all inputs], from now on; its parameters keep their names.

    Raises:
        ConfigurationError: forward() takes other inputs; `path` is the model's file.
    """
    parameters = inspect.signature(module.forward).parameters.values()
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)
    names = [each.name for each in parameters if each.kind is not inspect.Parameter.VAR_KEYWORD]
    needed = {each.name for each in parameters if each.kind in _NAMED and each.default is inspect.Parameter.empty}
    if not needed <= inputs.keys() or not (takes_any or inputs.keys() <= set(names)):
        raise ConfigurationError(
            f"{path}: forward() takes {', '.join(names) or 'nothing'}, task.toml has the inputs {', '.join(inputs)};"
            " give each parameter of forward() a table [inputs.NAME]"
        )
    module.__dict__["forward"] = partial(_forward, module.forward, inputs)


def split_row(row: Tensor, inputs: Mapping[str, InputSchema]) -> dict[str, Tensor]:
    """f32[B, values of all inputs] to f32[B, *shape] by name."""
    return {name: row[:, place].reshape(-1, *schema.shape) for name, schema, place in runs(inputs)}


def _forward(forward: object, inputs: Mapping[str, InputSchema], row: Tensor) -> object:
    return forward(**split_row(row, inputs))  # type: ignore[operator] # a bound method, in a partial that is copied


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
