"""The part of a model that draws pictures, as `[drawing]` of task.toml names it."""

from pathlib import Path

import torch
from torch import Tensor, nn

from fleet_protocol.drawing_plan import DrawingPlan, check_drawing, drawn_classes
from fleet_protocol.errors import ConfigurationError
from workbench.export.recipe.model_code import model_code
from workbench.export.recipe.probe import PROBE_ROWS, OperatorLimit
from workbench.export.recipe.task_file import TaskFile


class DrawingPart(nn.Module):
    """A module of which one part is called. The whole is `whole`, so that a tensor may have its name outside of the
    part.
    """

    def __init__(self, whole: nn.Module, plan: DrawingPlan) -> None:
        super().__init__()
        self.whole = whole
        self._part = plan.module

    def forward(self, *given: Tensor) -> Tensor:
        """Latent numbers f32[N, latent] and, where pictures have them, classes i64[N] to pictures f32[N, ...]."""
        drawn: Tensor = self.whole.get_submodule(self._part)(*given)
        return drawn


def check_draws(module: nn.Module, task: TaskFile, *, scaled: bool, model: Path, path: Path) -> None:
    """Check that the part that `[drawing]` in `path` names draws pictures like the input that it names.

    `module`, built by `model`, is in evaluation mode.

    Raises:
        ConfigurationError: it does not; what it gives instead, and what to change.
    """
    if (plan := task.drawing) is None:
        return
    check_drawing(plan, task.inputs, str(path), scaled=scaled)
    if task.backbone is not None or plan.module not in dict(module.named_modules()):
        known = ", ".join(name for name, _ in module.named_children())
        raise ConfigurationError(
            f"{path}: drawing.module {plan.module!r} is no submodule, or the task has a [backbone], with which none"
            f" draws; leave [backbone] out, and name a submodule, such as one of {known}"
        )
    given, takes = _tried(plan, drawn_classes(plan, task.inputs)[0])
    with model_code(model, f"{plan.module}.forward()", takes), torch.no_grad(), OperatorLimit():
        drawn: object = DrawingPart(module, plan)(*given)
    shape = [PROBE_ROWS, *task.inputs[plan.picture].shape]
    found = list(drawn.shape) if isinstance(drawn, Tensor) else type(drawn).__name__
    if found != shape:
        raise ConfigurationError(
            f"{path}: drawing.module {plan.module!r} gives {found}, and pictures like inputs.{plan.picture} have"
            f" {shape}; let its forward() return one picture for each row"
        )


def _tried(plan: DrawingPlan, first: int) -> tuple[list[Tensor], str]:
    """What the part is tried on, with the `first` class, and that in words."""
    latent, labels = torch.zeros(PROBE_ROWS, plan.latent), torch.full([PROBE_ROWS], first)
    takes = f"it has to take latent f32{list(latent.shape)}"
    if plan.label is None:
        return [latent], f"{takes} alone; write drawing.label where pictures have classes"
    return [latent, labels], f"{takes} and classes i64{list(labels.shape)}"
