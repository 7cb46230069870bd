"""How operators of torch become those of ONNX: torch's translations, and ours.

`torch.onnx.export` collects them anew for each graph, which takes half a CPU second; here it is once a process.
"""

from collections.abc import Callable, Mapping
from functools import cache

from torch._ops import OpOverload
from torch.onnx._internal.exporter._registration import ONNXRegistry

from workbench.export.conversion import max_pooling_nodes, whole_quotients

OPSET = 18
"""What `torch.onnx` writes without a version conversion; every onnxruntime since 1.14 runs it."""


def translations(more: Mapping[OpOverload, Callable[..., object]]) -> ONNXRegistry:
    """Ours, `more`, and torch's for all other operators."""
    registry = ONNXRegistry()
    registry.functions = {operator: list(found) for operator, found in _of_torch().functions.items()}
    for operator, translation in {**max_pooling_nodes.TRANSLATIONS, **whole_quotients.TRANSLATIONS, **more}.items():
        registry.register_op(operator, translation)
    return registry


@cache
def _of_torch() -> ONNXRegistry:
    return ONNXRegistry.from_torchlib(opset_version=OPSET)
