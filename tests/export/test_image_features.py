"""`models/image_features`: its graph is the network that its weights are for, and its samples are pictures."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn import functional

from bundle_runtime.graph_admission import check_graph
from fleet_protocol.bundle_files import BACKBONE_FILE
from models.image_features.efficientnet_lite0 import FEATURES, NORM_EPSILON, SIDE, STAGES, STEM_CHANNELS, backbone
from models.image_features.samples import inputs_from_picture

Weights = dict[str, torch.Tensor]


def layers() -> list[tuple[str, str, int, int, int, int]]:
    """Of each convolution: its name, that of its normalisation, inputs, outputs, kernel and groups."""
    found = [("_conv_stem", "_bn0", 3, STEM_CHANNELS, 3, 1)]
    number, channels = 0, STEM_CHANNELS
    for stage in STAGES:
        for _ in range(stage.blocks):
            name, inner = f"_blocks.{number}", channels * stage.expansion
            if stage.expansion > 1:
                found.append((f"{name}._expand_conv", f"{name}._bn0", channels, inner, 1, 1))
            found.append((f"{name}._depthwise_conv", f"{name}._bn1", inner, inner, stage.kernel, inner))
            found.append((f"{name}._project_conv", f"{name}._bn2", inner, stage.channels, 1, 1))
            number, channels = number + 1, stage.channels
    return [*found, ("_conv_head", "_bn1", channels, FEATURES, 1, 1)]


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Random, such that no layer's values vanish or grow."""
    generator = torch.Generator().manual_seed(1)
    made = {}
    for name, norm, inputs, outputs, kernel, groups in layers():
        size = inputs // groups * kernel**2
        made[f"{name}.weight"] = torch.randn(outputs, inputs // groups, kernel, kernel, generator=generator) / size**0.5
        for part, middle in (("weight", 1.5), ("bias", 0.5), ("running_mean", 0.0), ("running_var", 1.0)):
            made[f"{norm}.{part}"] = middle + 0.3 * torch.rand(outputs, generator=generator)
    return made


def convolved(maps: torch.Tensor, weights: Weights, name: str, norm: str, stride: int = 1) -> torch.Tensor:
    kernel = weights[f"{name}.weight"]
    size, edge = kernel.shape[-1], maps.shape[-1]
    lacking = max(0, (-(-edge // stride) - 1) * stride + size - edge)
    maps = functional.pad(maps, (lacking // 2, lacking - lacking // 2) * 2)
    maps = functional.conv2d(maps, kernel, stride=stride, groups=maps.shape[1] if kernel.shape[1] == 1 else 1)
    parts = (weights[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return functional.batch_norm(maps, *parts, eps=NORM_EPSILON)


def by_torch(pictures: torch.Tensor, weights: Weights) -> torch.Tensor:
    """The network as its paper has it, with normalisations that stand by themselves."""
    maps = functional.relu6(convolved((255 * pictures - 127) / 128, weights, "_conv_stem", "_bn0", 2))
    number = 0
    for stage in STAGES:
        for place in range(stage.blocks):
            name, given, stride = f"_blocks.{number}", maps, 1 if place else stage.stride
            if stage.expansion > 1:
                maps = functional.relu6(convolved(maps, weights, f"{name}._expand_conv", f"{name}._bn0"))
            maps = functional.relu6(convolved(maps, weights, f"{name}._depthwise_conv", f"{name}._bn1", stride))
            maps = convolved(maps, weights, f"{name}._project_conv", f"{name}._bn2")
            maps = maps + given if maps.shape == given.shape else maps
            number += 1
    return functional.relu6(convolved(maps, weights, "_conv_head", "_bn1")).mean((2, 3))


def test_graph_computes_what_the_network_does_and_devices_take_it(weights):
    pictures = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    graph = backbone({name: value.numpy() for name, value in weights.items()}).SerializeToString()
    check_graph(BACKBONE_FILE, graph)
    (found,) = onnxruntime.InferenceSession(graph).run(None, {"inputs": pictures.numpy()})
    with torch.no_grad():
        expected = by_torch(pictures, weights).numpy()
    assert found.shape == (2, FEATURES)
    assert expected.std() > 0.01
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("shape", [(1, 1, 3), (40, 300, 3), (300, 40), (SIDE, SIDE, 3)])
def test_any_picture_becomes_a_sample_within_the_tasks_bounds(shape):
    picture = np.random.default_rng(3).integers(0, 256, shape).astype(np.uint8)
    found = inputs_from_picture(picture)
    assert (found.shape, found.dtype) == ((3, SIDE, SIDE), np.float32)
    assert picture.min() / 255 - 1e-6 <= found.min() <= found.max() <= picture.max() / 255 + 1e-6
    assert found.max() <= 1.0
    if shape == (SIDE, SIDE, 3):
        np.testing.assert_allclose(found, picture.transpose(2, 0, 1) / 255, atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 4, 4), (4,), (0, 4, 3), (2, 4, 4, 3)])
def test_what_is_no_picture_is_refused_with_its_shape(shape):
    with pytest.raises(ValueError, match="a picture is \\[height, width, 3\\]"):
        inputs_from_picture(np.zeros(shape, np.uint8))
