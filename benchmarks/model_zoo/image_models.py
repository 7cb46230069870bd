"""Models of images f32[B, C, H, W]."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.model_zoo.blocks import (
    CLASSES,
    Applied,
    ChannelNorm,
    Residual,
    SqueezeExcite,
    conv,
    normed,
    pooled_head,
)


def small_cnn() -> nn.Module:
    """Two convolutions on 8x8 pixels."""
    layers = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, CLASSES))


def lenet() -> nn.Module:
    """LeCun et al. 1998, with average pooling and tanh."""
    layers = [
        nn.Conv2d(1, 6, 5, padding=2),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.Tanh(),
        nn.AvgPool2d(2),
    ]
    dense = [nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, CLASSES)]
    return nn.Sequential(*layers, *dense)


def vgg() -> nn.Module:
    """Pairs of convolutions between max pools."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 8), (8, 16), (16, 32)):
        layers += [conv(inputs, outputs), nn.ReLU(), conv(outputs, outputs), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2), nn.Linear(512, CLASSES))


def resnet8() -> nn.Module:
    """ResNet-8 of MLPerf Tiny, at half its width: He et al. 2016."""
    layers: list[nn.Module] = [normed(conv(3, 8))]
    for inputs, outputs, stride in ((8, 8, 1), (8, 16, 2), (16, 32, 2)):
        body = nn.Sequential(normed(conv(inputs, outputs, 3, stride)), conv(outputs, outputs), nn.BatchNorm2d(outputs))
        shortcut = None if stride == 1 else conv(inputs, outputs, 1, stride)
        layers += [Residual(body, shortcut), nn.ReLU()]
    return nn.Sequential(*layers, *pooled_head(32))


def dscnn() -> nn.Module:
    """A convolution and two depthwise-separable ones, as for keyword spotting."""
    layers: list[nn.Module] = [nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU()]
    for _ in range(2):
        layers += [nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU()]
    return nn.Sequential(*layers, *pooled_head(16))


def _inverted(inputs: int, inner: int, outputs: int, kernel: int, stride: int, *, squeezed: bool = False) -> nn.Module:
    """An inverted residual block: Sandler et al. 2018."""
    activation = nn.Hardswish if squeezed else nn.ReLU6
    layers: list[nn.Module] = [normed(conv(inputs, inner, 1), activation)]
    layers.append(normed(conv(inner, inner, kernel, stride, groups=inner), activation))
    layers += [SqueezeExcite(inner, inner // 4)] * squeezed
    body = nn.Sequential(*layers, conv(inner, outputs, 1), nn.BatchNorm2d(outputs))
    return Residual(body) if stride == 1 and inputs == outputs else body


def mobilenet_v2() -> nn.Module:
    """A few blocks of MobileNetV2."""
    blocks = [_inverted(8, 32, 8, 3, 1), _inverted(8, 32, 16, 3, 2), _inverted(16, 64, 16, 3, 1)]
    return nn.Sequential(normed(conv(3, 8, 3, 2), nn.ReLU6), *blocks, *pooled_head(16))


def mobilenet_v3() -> nn.Module:
    """All blocks of MobileNetV3-small at half the width: Howard et al. 2019."""
    plan = [(8, 8, 8, 3, 2), (8, 36, 12, 3, 2), (12, 44, 12, 3, 1), (12, 48, 20, 5, 2), (20, 120, 20, 5, 1)]
    plan += [(20, 60, 24, 5, 1), (24, 72, 24, 5, 1), (24, 144, 48, 5, 2), (48, 288, 48, 5, 1), (48, 288, 48, 5, 1)]
    blocks = [_inverted(*sizes, squeezed=True) for sizes in plan]
    head = [normed(conv(48, 144, 1), nn.Hardswish), *pooled_head(144)]
    return nn.Sequential(normed(conv(3, 8, 3, 2), nn.Hardswish), *blocks, *head)


def shufflenet() -> nn.Module:
    """Grouped convolutions with their channels shuffled: Zhang et al. 2018."""

    def shuffled(inputs: Tensor) -> Tensor:
        return inputs.reshape(-1, 4, 8, 8, 8).transpose(1, 2).flatten(1, 2)

    def block() -> nn.Module:
        layers = [normed(conv(32, 32, 1, groups=4)), Applied(shuffled), normed(conv(32, 32, groups=32), nn.Identity)]
        return Residual(nn.Sequential(*layers, normed(conv(32, 32, 1, groups=4), nn.Identity)))

    return nn.Sequential(normed(conv(3, 32, 3, 2)), block(), nn.ReLU(), block(), nn.ReLU(), *pooled_head(32))


def resnext() -> nn.Module:
    """Grouped convolutions inside residual blocks: Xie et al. 2017."""

    def block() -> nn.Module:
        layers = [normed(conv(16, 32, 1)), normed(conv(32, 32, groups=8)), conv(32, 16, 1), nn.BatchNorm2d(16)]
        return Residual(nn.Sequential(*layers))

    return nn.Sequential(normed(conv(3, 16, 3, 2)), block(), nn.ReLU(), block(), nn.ReLU(), *pooled_head(16))


def convnext() -> nn.Module:
    """Two stages of ConvNeXt: Liu et al. 2022."""

    def block(channels: int) -> nn.Module:
        mix = [nn.Conv2d(channels, channels, 7, padding=3, groups=channels), ChannelNorm(channels)]
        mlp = [nn.Conv2d(channels, 4 * channels, 1), nn.GELU(), nn.Conv2d(4 * channels, channels, 1)]
        return Residual(nn.Sequential(*mix, *mlp))

    stem = [nn.Conv2d(3, 12, 4, 4), ChannelNorm(12), block(12), block(12)]
    stage = [ChannelNorm(12), nn.Conv2d(12, 24, 2, 2), block(24), block(24)]
    return nn.Sequential(*stem, *stage, *pooled_head(24))


class DenseBlock(nn.Module):
    """Every layer sees all before it: Huang et al. 2017."""

    def __init__(self, inputs: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(inputs + growth * number), nn.ReLU(), conv(inputs + growth * number, growth))
            for number in range(layers)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """f32[B, C, H, W] to f32[B, C + growth * layers, H, W]."""
        for layer in self.layers:
            inputs = torch.cat([inputs, layer(inputs)], dim=1)
        return inputs


def densenet() -> nn.Module:
    """Two dense blocks with an average pool between them."""
    between = [conv(20, 10, 1), nn.AvgPool2d(2)]
    return nn.Sequential(conv(3, 8, 3, 2), DenseBlock(8, 4, 3), *between, DenseBlock(10, 4, 3), *pooled_head(22))


class Inception(nn.Module):
    """Kernels of several sizes side by side: Szegedy et al. 2015."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(inputs, 4, 1))
        self.branches = nn.ModuleList([conv(inputs, 8, 1), conv(inputs, 8, 3), conv(inputs, 4, 5), pool])

    def forward(self, inputs: Tensor) -> Tensor:
        """f32[B, C, H, W] to f32[B, 24, H, W]."""
        return functional.relu(torch.cat([branch(inputs) for branch in self.branches], dim=1))


def inception() -> nn.Module:
    """Two such blocks."""
    return nn.Sequential(conv(3, 8, 3, 2), Inception(8), nn.MaxPool2d(2), Inception(24), *pooled_head(24))


class UNet(nn.Module):
    """Down and up again, with what was seen on the way down: Ronneberger et al. 2015."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.bottom = normed(conv(1, 8)), normed(conv(8, 16))
        self.up, self.join = nn.ConvTranspose2d(16, 8, 2, 2), normed(conv(16, 8))
        self.out = nn.Conv2d(8, 1, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """f32[B, 1, H, W] to the same."""
        wide = self.down(inputs)
        deep = self.up(self.bottom(functional.max_pool2d(wide, 2)))
        outputs: Tensor = self.out(self.join(torch.cat([wide, deep], dim=1)))
        return outputs


def dilated_cnn() -> nn.Module:
    """Convolutions whose kernels spread: Yu & Koltun 2016."""
    layers: list[nn.Module] = [nn.Conv2d(1, 8, 3, padding=1), nn.ELU()]
    for spread in (2, 4):
        layers += [nn.Conv2d(8, 8, 3, padding=spread, dilation=spread), nn.GroupNorm(2, 8), nn.ELU()]
    return nn.Sequential(*layers, *pooled_head(8))


def vision_transformer() -> nn.Module:
    """Patches of 4x4 pixels through two transformer layers: Dosovitskiy et al. 2021."""
    layer = partial(nn.TransformerEncoderLayer, 32, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True)
    patches = [nn.Conv2d(3, 32, 4, 4), nn.Flatten(2), Applied(lambda values: values.transpose(1, 2))]
    mean = Applied(lambda values: values.mean(dim=1))
    return nn.Sequential(*patches, layer(), layer(), nn.LayerNorm(32), mean, nn.Linear(32, CLASSES))


def mlp_mixer() -> nn.Module:
    """Patches mixed by linear layers alone: Tolstikhin et al. 2021."""

    def mlp(size: int, inner: int) -> list[nn.Module]:
        return [nn.Linear(size, inner), nn.GELU(), nn.Linear(inner, size)]

    def turned(values: Tensor) -> Tensor:
        return values.transpose(1, 2)

    def block() -> list[nn.Module]:
        places = nn.Sequential(nn.LayerNorm(24), Applied(turned), *mlp(16, 16), Applied(turned))
        return [Residual(places), Residual(nn.Sequential(nn.LayerNorm(24), *mlp(24, 48)))]

    patches = [nn.Conv2d(3, 24, 4, 4), nn.Flatten(2), Applied(turned)]
    mean = Applied(lambda values: values.mean(dim=1))
    return nn.Sequential(*patches, *block(), *block(), mean, nn.Linear(24, CLASSES))
