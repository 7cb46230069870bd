"""Explains which operator of which module prevents an export."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.func import functional_call, vjp
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from fleet_protocol.errors import ConfigurationError
from workbench.export.decompositions import decomposition_table
from workbench.export.exportable_layers import exportable_layers
from workbench.export.layer_context import LayerContext

_MISSING_OPERATOR = re.compile(r"No ONNX function found for <OpOverload\(op='(?P<operator>[^']+)'")
PROBE_ROWS = 2
Arguments = tuple[tuple[object, ...], dict[str, object]]
"""Positional and named arguments of one call."""

INSTEAD = {
    "_ctc_loss": "a loss that edgeflock has",
    "_trilinear": "a Linear on the product of its inputs",
    "_embedding_bag": "Embedding and a mean",
    "adaptive_max_pool2d": "MaxPool2d",
    "as_strided_scatter": "torch.where or torch.cat where it writes into a part of a tensor",
    "cumsum": "a product with a triangular matrix",
    "fft_r2c": "a convolution with fixed kernels, or features computed before the sample store",
    "grid_sampler_2d": "convolution or pooling",
    "lgamma": "a polynomial or a small MLP",
    "max_pool3d_with_indices": "MaxPool2d",
    "sort": "topk outside the model",
    "upsample_bicubic2d": "ConvTranspose2d",
    "upsample_bilinear2d": "ConvTranspose2d",
}
"""Operator to what serves instead of it in a small model."""

REMEDY = "replace it in model.py{instead}, or add its decomposition to workbench/export/decompositions.py"


@contextmanager
def explained(file: str, module: nn.Module, sample_shape: Sequence[int]) -> Iterator[None]:
    """Turn whatever torch raises while the block exports `module` to `file` into one sentence.

    Raises:
        ConfigurationError: naming the file, the operator if one is missing, and the submodule at fault.
    """
    entered: list[str] = []
    hooks = _watch(module, entered)
    try:
        yield
    except torch.onnx.OnnxExporterError as error:
        missing = _MISSING_OPERATOR.search(str(error))
        if missing is None:
            raise ConfigurationError(f"{file}: torch.onnx can't convert the model: {_last_line(error)}") from error
        operator = missing["operator"]
        user = module_using(operator, module, sample_shape)
        name = _basename(operator).removesuffix("_backward")
        remedy = REMEDY.format(instead=f" by {INSTEAD[name]}" if name in INSTEAD else "")
        raise ConfigurationError(f"{file}: ONNX has no operator {operator}, used by {user}; {remedy}") from error
    except Exception as error:
        place = _describe(module, entered[-1]) if entered else "the loss, the backward pass or the finished graph"
        raise ConfigurationError(
            f"{file}: {place} can't be exported: {type(error).__name__}: {_first_line(error)};"
            " write it in operators that depend on shapes only and change nothing in place"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()


def module_using(operator: str, module: nn.Module, sample_shape: Sequence[int]) -> str:
    """Name the innermost submodule whose forward or backward pass needs `operator`, such as `aten.lgamma`.

    Only called when an export has failed: it traces each submodule by itself, children before their parents.
    """
    arguments = _arguments(module, sample_shape)
    for name, part in reversed(list(module.named_modules())):
        if name in arguments and _basename(operator) in _operators(part, arguments[name]):
            return _describe(module, name)
    return "the loss or the training step"


def _watch(module: nn.Module, entered: list[str]) -> list[torch.utils.hooks.RemovableHandle]:
    """Keep in `entered` the submodules that execution is inside of. An exception leaves the culprit at the end."""

    def leave(*_: object) -> None:
        entered.pop()

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: entered.append(name)

    hooks = []
    for name, part in module.named_modules():
        hooks += [part.register_forward_pre_hook(enter(name)), part.register_forward_hook(leave)]
    return hooks


def _arguments(module: nn.Module, sample_shape: Sequence[int]) -> dict[str, Arguments]:
    """What each submodule is called with when the model sees two samples of ones. An unused one is left out."""
    arguments: dict[str, Arguments] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda _, positional, named: arguments.update({name: (positional, named)})

    hooks = [part.register_forward_pre_hook(note(name), with_kwargs=True) for name, part in module.named_modules()]
    with torch.no_grad():
        module(torch.ones([PROBE_ROWS, *sample_shape]))
    for hook in hooks:
        hook.remove()
    return arguments


def _operators(part: nn.Module, arguments: Arguments) -> set[str]:
    """Names, without namespace, of the operators in the forward and backward pass of `part` on these arguments."""
    names = [name for name, _ in part.named_parameters()]
    leaves, structure = pytree.tree_flatten(arguments)
    varied = [index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.is_floating_point()]

    def forward(*tensors: Tensor) -> list[Tensor]:
        given = list(leaves)
        for index, tensor in zip(varied, tensors[len(names) :], strict=True):
            given[index] = tensor
        positional, named = pytree.tree_unflatten(given, structure)
        context = LayerContext(torch.full((PROBE_ROWS,), 1 / PROBE_ROWS), torch.tensor(0))
        with exportable_layers(part, context):
            result = functional_call(part, dict(zip(names, tensors, strict=False)), positional, named)
        return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor) and leaf.is_floating_point()]

    def forward_and_backward(*tensors: Tensor) -> object:
        results, pull_back = vjp(forward, *tensors)[:2]
        return results, pull_back([torch.ones_like(result) for result in results])

    tensors = [*(value.detach() for value in part.parameters()), *(leaves[index] for index in varied)]
    traced = make_fx(forward_and_backward, decomposition_table=decomposition_table(), tracing_mode="fake")(*tensors)
    return {_basename(str(node.target)) for node in traced.graph.nodes if isinstance(node.target, OpOverload)}


def _basename(operator: str) -> str:
    """`lgamma` of `aten.lgamma.default` and of `prims.lgamma`: conversion moves operators between namespaces."""
    return operator.split(".")[1]


def _describe(module: nn.Module, name: str) -> str:
    kind = type(module.get_submodule(name)).__name__
    return f"module {name!r} ({kind})" if name else f"the model itself ({kind})"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _last_line(error: Exception) -> str:
    summary = re.findall(r"^<class '.*'>: (.*)$", str(error), flags=re.MULTILINE)
    return summary[0] if summary else _first_line(error)
