"""Whether a picture was among those that a pair was trained on, by numbers that anybody with a version can compute.

A discriminator that has learned its pictures by heart scores them higher than others (Hayes et al. 2019, "LOGAN"), and
a generator draws them again (Chen et al. 2020, "GAN-Leaks").
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.inversion.decoder import SIDE
from benchmarks.split_gans.scenario import Labelled


def area_under_curve(members: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """How often a member has the larger number of the two, f32[N] and f32[M]; 0.5 is chance, ties count half."""
    difference = members[:, None] - others[None, :]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def scores(discriminator: nn.Module, data: Labelled) -> NDArray[np.float32]:
    """f32[N] by the discriminator as versions have it: above 0 where it takes a picture for a real one."""
    discriminator.eval()
    pictures = torch.from_numpy(data.pictures).reshape(-1, 1, SIDE, SIDE)
    with torch.no_grad():
        found: Tensor = discriminator(pictures, torch.from_numpy(data.classes))
    return np.asarray(found.numpy())


def nearness(data: Labelled, drawn: Labelled) -> NDArray[np.float32]:
    """f32[N]: minus the distance of each picture to the nearest that was drawn."""
    distances = torch.cdist(torch.from_numpy(data.pictures), torch.from_numpy(drawn.pictures))
    return -np.asarray(distances.amin(dim=1).numpy())
