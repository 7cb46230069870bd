"""How near rebuilt pictures are to the real ones: SSIM (Wang et al. 2004) with even windows, and squared error."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

WINDOW = 7
STABLE_MEAN, STABLE_VARIANCE = 0.01**2, 0.03**2
"""Of SSIM, for brightness from 0 to 1."""


@dataclass(frozen=True)
class Likeness:
    """How near rebuilt pictures are to the real ones, in the mean."""

    ssim: float
    squared_error: float


def likeness(rebuilt: Tensor, real: Tensor) -> Likeness:
    """Of pictures f32[N, 1, H, W]."""

    def mean(values: Tensor) -> Tensor:
        return functional.avg_pool2d(values, WINDOW, stride=1)

    means = mean(rebuilt), mean(real)
    variances = mean(rebuilt**2) - means[0] ** 2, mean(real**2) - means[1] ** 2
    covariance = mean(rebuilt * real) - means[0] * means[1]
    above = (2 * means[0] * means[1] + STABLE_MEAN) * (2 * covariance + STABLE_VARIANCE)
    below = (means[0] ** 2 + means[1] ** 2 + STABLE_MEAN) * (variances[0] + variances[1] + STABLE_VARIANCE)
    return Likeness(round(float((above / below).mean()), 3), round(float(((rebuilt - real) ** 2).mean()), 4))
