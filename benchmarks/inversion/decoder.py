"""A network from activations to pictures, trained on pictures that the attacker has."""

import torch
from torch import Tensor, nn
from torch.nn import functional

ROWS, STEPS, RATE = 32, 300, 3e-3
SIDE = 28


def decoder(channels: int, side: int) -> nn.Module:
    """Activations f32[N, channels, side, side] to pictures f32[N, 1, 28, 28]."""
    layers: list[nn.Module] = [nn.BatchNorm2d(channels), nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU()]
    while side < SIDE:
        layers += [nn.ConvTranspose2d(16, 16, 4, stride=2, padding=1), nn.ReLU()]
        side *= 2
    return nn.Sequential(*layers, nn.Conv2d(16, 1, 3, padding=1), nn.Sigmoid())


def trained_decoder(seen: Tensor, pictures: Tensor, steps: int = STEPS) -> nn.Module:
    """One that has learned from what the helper would see, f32[N, C, S, S], of known pictures f32[N, 1, 28, 28]."""
    torch.manual_seed(0)
    model = decoder(seen.shape[1], seen.shape[2])
    optimiser = torch.optim.Adam(model.parameters(), RATE)
    for _ in range(steps):
        rows = torch.randint(len(seen), (ROWS,))
        step(optimiser, functional.mse_loss(model(seen[rows]), pictures[rows]))
    return model.eval()


def rebuilt(model: nn.Module, seen: Tensor) -> Tensor:
    """The pictures f32[N, 1, 28, 28] that a decoder makes of what was seen."""
    with torch.no_grad():
        pictures: Tensor = model(seen)
    return pictures


def step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """Go down the gradient of `loss`."""
    optimiser.zero_grad()
    torch.autograd.backward(loss)
    optimiser.step()
