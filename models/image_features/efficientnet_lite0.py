"""Makes backbone.onnx out of the weights of EfficientNet-Lite0 that `make image-features` fetches.

    pictures f32[N, 3, 128, 128], 0 to 1 -> 16 blocks -> 1280 maps of 4 by 4 -> the mean of each, f32[N, 1280]

The network is that of Tan and Le 2019 without squeeze and excitation, with ReLU6, and with the padding of TensorFlow.
A batch normalisation is linear, so it is folded into the convolution before it.

Usage: python models/image_features/efficientnet_lite0.py WEIGHTS OUT
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

SIDE = 128
FEATURES = 1280
MIDDLE, SPREAD = 127.0, 128.0
"""Of 8-bit pixels, as the network was trained on them."""
NORM_EPSILON = 1e-3
OPSET = 13
IR_VERSION = 8


class Stage(NamedTuple):
    """So many blocks, of which the first has the `stride`; each widens its maps `expansion` times inside."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STEM_CHANNELS = 32
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
"""EfficientNet-B0 (Tan and Le 2019, table 1)."""

Weights = Mapping[str, NDArray[np.float32]]


@dataclass
class Graph:
    """Nodes as they are added, one after the other."""

    weights: Weights
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def add(self, operator: str, given: list[str], **attributes: object) -> str:
        """A node; returns the name of what it gives."""
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, given, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: NDArray[np.float32]) -> str:
        """A weight; returns its name."""
        self.constants[name] = value
        return name

    def convolved(self, given: str, layer: str, norm: str, stride: int = 1, *, active: bool = True) -> str:
        """A convolution with the normalisation behind it and, if `active`, ReLU6."""
        kernel = self.weights[f"{layer}.weight"].astype(np.float64)
        scale, shift, mean, variance = (
            self.weights[f"{norm}.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        factor = scale / np.sqrt(variance + NORM_EPSILON)
        folded = self.constant(f"{layer}.weight", (kernel * factor[:, None, None, None]).astype(np.float32))
        bias = self.constant(f"{layer}.bias", (shift - mean * factor).astype(np.float32))
        is_depthwise = kernel.shape[1] == 1
        made = self.add(
            "Conv",
            [given, folded, bias],
            auto_pad="SAME_UPPER",
            strides=[stride, stride],
            group=kernel.shape[0] if is_depthwise else 1,
        )
        return self.add("Clip", [made, "zero", "six"]) if active else made


def backbone(weights: Weights) -> onnx.ModelProto:
    """The network without its last layer, from `inputs` f32[N, 3, 128, 128], 0 to 1, to `features` f32[N, 1280]."""
    graph = Graph(weights)
    for name, value in (("zero", 0.0), ("six", 6.0), ("range", 255 / SPREAD), ("middle", MIDDLE / SPREAD)):
        graph.constant(name, np.array(value, np.float32))
    pixels = graph.add("Sub", [graph.add("Mul", ["inputs", "range"]), "middle"])
    maps = graph.convolved(pixels, "_conv_stem", "_bn0", stride=2)
    number, channels = 0, STEM_CHANNELS
    for stage in STAGES:
        for place in range(stage.blocks):
            maps = _block(graph, maps, f"_blocks.{number}", stage, is_first=not place, channels=channels)
            number, channels = number + 1, stage.channels
    maps = graph.convolved(maps, "_conv_head", "_bn1")
    pooled = graph.add("GlobalAveragePool", [maps])
    graph.nodes.append(helper.make_node("Flatten", [pooled], ["features"], name="features", axis=1))
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "efficientnet_lite0",
            [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", FEATURES])],
            [numpy_helper.from_array(value, name) for name, value in graph.constants.items()],
        ),
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    onnx.checker.check_model(made, full_check=True)
    return made


def _block(graph: Graph, given: str, name: str, stage: Stage, *, is_first: bool, channels: int) -> str:
    """Widen, convolve each map by itself, narrow; added to what was given, of so many `channels`, where that has the
    same shape.
    """
    maps, stride = given, stage.stride if is_first else 1
    if stage.expansion > 1:
        maps = graph.convolved(maps, f"{name}._expand_conv", f"{name}._bn0")
    maps = graph.convolved(maps, f"{name}._depthwise_conv", f"{name}._bn1", stride)
    maps = graph.convolved(maps, f"{name}._project_conv", f"{name}._bn2", active=False)
    return graph.add("Add", [maps, given]) if stride == 1 and channels == stage.channels else maps


def main(weights: Path, out: Path) -> None:
    """Read the weights, and write `out`."""
    read = torch.load(weights, map_location="cpu", weights_only=True)
    made = backbone({name: tensor.numpy() for name, tensor in read.items()})
    out.write_bytes(made.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
