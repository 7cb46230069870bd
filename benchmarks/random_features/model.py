"""A linear head behind random features, which are the same on all devices: the task's seed draws their weights."""

from torch import Tensor, nn

INPUTS, FEATURES, CLASSES = 64, 256, 10
MEAN_BRIGHTNESS = 0.3
CONTRAST = 2.0


class RandomFeatures(nn.Module):
    """f32[N, 64] to f32[N, 256]."""

    def __init__(self) -> None:
        super().__init__()
        self.directions = nn.Linear(INPUTS, FEATURES)

    def forward(self, images: Tensor) -> Tensor:
        """The features."""
        turned: Tensor = self.directions((images - MEAN_BRIGHTNESS) * CONTRAST)
        return turned.tanh()


class RandomFeatureModel(nn.Sequential):
    """The features, which no device trains, and the head."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module("features", RandomFeatures())
        self.add_module("head", nn.Linear(FEATURES, CLASSES))


def build() -> nn.Module:
    """64 brightness values f32[N, 64] to one score per digit f32[N, 10]; 2,570 trained parameters."""
    return RandomFeatureModel()
