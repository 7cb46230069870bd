"""What a module has to be before it is worth an export: parameters that can train, as many as a task may have."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_BLOB_BYTES, MAX_PARAMETERS, MIB
from fleet_protocol.parameter import Parameter
from workbench.export.layers.module_calls import described

SHARES = "a frozen backbone and what trains behind it can't share a tensor; copy it in build(), with clone()"

HOOKS = (
    "hooks do not run on a device: take it out, and scale a gradient by a in forward(), as x * a + (x - x * a).detach()"
)
_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def names_of_parameters(module: nn.Module) -> dict[str, list[str]]:
    """First name to all names of each parameter: one that is used in two places has two."""
    first: dict[Tensor, str] = {}
    names: dict[str, list[str]] = {}
    for name, value in module.named_parameters(remove_duplicate=False):
        names.setdefault(first.setdefault(value, name), []).append(name)
    return names


def check_build(model: ModuleType, path: Path) -> Callable[[], object]:
    """The function `build` of the recipe's `model.py`, which is at `path`.

    Raises:
        ConfigurationError: there is none, or it can't be called without arguments.
    """
    build: object = getattr(model, "build", None)
    if not callable(build):
        raise ConfigurationError(f"{path}: no function build(); write one that returns the torch.nn.Module to train")
    parameters = inspect.signature(build).parameters.values()
    if needed := [each.name for each in parameters if each.default is each.empty and each.kind not in _ANY]:
        raise ConfigurationError(f"{path}: build() is called without arguments; give {needed[0]!r} a default")
    return build


def check_module(module: nn.Module, backbone: str, path: Path) -> None:
    """Check what `build()` in `path` made; `backbone` names the frozen submodule, if there is one.

    Raises:
        ConfigurationError: it can't train, and why.
    """
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise ConfigurationError(
                f"{path}: module {name!r} is compiled by torch.jit, which can't be differentiated again; give the"
                " nn.Module that it was made from"
            )
        if part._backward_hooks or part._backward_pre_hooks:
            raise ConfigurationError(f"{path}: {described(module, name)} has a backward hook; {HOOKS}")
    if not any(True for _ in module.parameters()):
        raise ConfigurationError(
            f"{path}: the model has no parameters, so nothing can train; give it a layer with some"
        )
    for name, value in module.named_parameters():
        if isinstance(value, UninitializedParameter):
            continue  # its first run gives it a shape
        if value.dtype != torch.float32 or not value.requires_grad:
            raise ConfigurationError(
                f"{path}: parameter {name!r} is {value.dtype}, requires_grad={value.requires_grad};"
                " every parameter must be a trainable float32 tensor; task.toml says which ones train"
            )
        if value._backward_hooks or value._post_accumulate_grad_hooks:
            raise ConfigurationError(f"{path}: parameter {name!r} has a hook on its gradient; {HOOKS}")
    for names in names_of_parameters(module).values():
        inside = [name for name in names if backbone and name.startswith(f"{backbone}.")]
        outside = [name for name in names if name not in inside]
        if inside and outside:
            raise ConfigurationError(f"{path}: parameters {inside[0]!r} and {outside[0]!r} are one tensor; {SHARES}")


def check_shapes(module: nn.Module, path: Path) -> None:
    """Check, after a run of the module, that every parameter has values.

    Raises:
        ConfigurationError: one has none; `path` is the model's file.
    """
    for name, value in module.named_parameters():
        if isinstance(value, UninitializedParameter):
            layer = name.rpartition(".")[0]
            raise ConfigurationError(
                f"{path}: parameter {name!r} has no shape, as forward() never calls {layer!r}; leave that layer out"
            )
        if not value.numel():
            raise ConfigurationError(f"{path}: parameter {name!r} of shape {list(value.shape)} is empty; leave it out")


def check_size(module: nn.Module, parameters: Iterable[Parameter], path: Path, *, quantised: bool) -> None:
    """Check that what trains is not more than a task may have, nor what is frozen more than a file may hold.

    Raises:
        ConfigurationError: one of them is; `path` is the recipe's task.toml.
    """
    count = sum(parameter.size for parameter in parameters)
    if count > MAX_PARAMETERS:
        raise ConfigurationError(
            f"{path}: {count} values train, more than MAX_PARAMETERS ({MAX_PARAMETERS}); name the ones that should in"
            " trainable, such as those of the last layers, or make the model smaller"
        )
    held = sum(value.numel() for value in [*module.parameters(), *module.buffers()])
    size = (held - count) * (1 if quantised else 4)
    if size > MAX_BLOB_BYTES:
        raise ConfigurationError(
            f"{path}: what is frozen takes {size / MIB:.0f} MiB in a graph, more than MAX_BLOB_BYTES"
            f" ({MAX_BLOB_BYTES // MIB} MiB); make the model smaller, or its frozen part a [backbone] with quantise ="
            " 'int8'"
        )


def check_takes_part(outputs: Sequence[Tensor], trained: Sequence[Tensor], path: Path) -> None:
    """Check that some parameter that trains has an influence on the outputs.

    Raises:
        ConfigurationError: none has; `path` is the model's file.
    """
    influenced = [output for output in outputs if output.requires_grad]
    ones = [torch.ones_like(output) for output in influenced]
    gradients = torch.autograd.grad(influenced, trained, ones, allow_unused=True) if influenced else ()
    if all(gradient is None for gradient in gradients):
        raise ConfigurationError(
            f"{path}: what forward() returns depends on no parameter that trains; let it return what the layers make"
            " of its inputs, without detach(), .data or torch.no_grad()"
        )
