"""The loss that a recipe writes itself: `loss(...)` in its `model.py`, as one number per row."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

import torch
from torch import Tensor

from fleet_protocol.errors import ConfigurationError

FUNCTION: Final = "loss"
ARGUMENTS: Final = {
    "outputs": "what forward() returned",
    "labels": "the labels",
    "inputs": "what forward() was called with",
    "real": "1 for a sample and 0 for the padding of a short mini-batch, one per row",
}
"""What the function may ask for, by the names of its parameters."""
WHY: Final = {False: "loss = 'model.py'", True: "[parts.NAME]"}
"""What in task.toml asks for the one function, or for one of a part."""


@dataclass(frozen=True, slots=True)
class OwnLoss:
    """`function` and which of `ARGUMENTS` it asks for."""

    function: Callable[..., Tensor]
    asks_for: tuple[str, ...]

    def __call__(self, told: Mapping[str, object]) -> Tensor:
        """What the function gives; `told` has all of `ARGUMENTS`."""
        return self.function(**{name: told[name] for name in self.asks_for})

    def rows(self, told: Mapping[str, object], real: Tensor) -> Tensor:
        """The loss of each row, f32[B]; 0 where `real` f32[B] is, whatever the function makes of padding."""
        return torch.where(real > 0, self(told), 0.0)


def own_losses(model: ModuleType, path: Path, parts: Iterable[str], *, has_labels: bool) -> dict[str, OwnLoss]:
    """The losses of a recipe's `model.py`, which is at `path`: `loss_PART` by the names of `parts`, or `loss` as ''.

    Raises:
        ConfigurationError: there is none, or it asks for what training does not have.
    """
    names = {part: f"{FUNCTION}_{part}" for part in parts} or {"": FUNCTION}
    return {part: _own_loss(model, name, path, has_labels=has_labels) for part, name in names.items()}


def _own_loss(model: ModuleType, name: str, path: Path, *, has_labels: bool) -> OwnLoss:
    function = getattr(model, name, None)
    if not inspect.isfunction(function):
        raise ConfigurationError(
            f"{path}: no function {name}(), which task.toml asks for with"
            f" {WHY[name != FUNCTION]}; write one, such as def {name}(outputs, labels),"
            " that gives one number per row"
        )
    asked = tuple(
        each.name for each in inspect.signature(function).parameters.values() if each.default is inspect.Parameter.empty
    )
    if unknown := [each for each in asked if each not in ARGUMENTS]:
        offered = "; ".join(f"{each!r} is {words}" for each, words in ARGUMENTS.items())
        raise ConfigurationError(
            f"{path}: {name}() asks for {unknown[0]!r}, which is not known here; let it ask for what is: {offered}"
        )
    if "labels" in asked and not has_labels:
        raise ConfigurationError(
            f"{path}: {name}() asks for 'labels', but label.kind says that there are none; leave it out"
        )
    return OwnLoss(function, asked)


def check_rows(given: object, rows: int, name: str, path: Path) -> None:
    """Check what the function gave for so many rows.

    Raises:
        ConfigurationError: it isn't one floating-point number per row.
    """
    if isinstance(given, Tensor) and given.shape == (rows,) and given.dtype == torch.float32:
        return
    found = f"{given.dtype} {list(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
    raise ConfigurationError(
        f"{path}: {name}() must give one float32 number per row, [{rows}] for {rows} rows; it gives {found}: take"
        " means over every axis but the first, and leave the mean over rows to training, which knows the padding"
    )
