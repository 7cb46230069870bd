"""Models of rows of numbers, sets and graphs."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.model_zoo.blocks import CLASSES, Residual, token_ids

USERS = 50
NODES = 12


def mlp_head() -> nn.Module:
    """One hidden layer on 64 features."""
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, CLASSES))


def deep_mlp() -> nn.Module:
    """Residual blocks with LayerNorm."""

    def block() -> nn.Module:
        return Residual(nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 32)))

    return nn.Sequential(nn.Linear(16, 32), block(), block(), block(), nn.Linear(32, CLASSES))


def batch_normed_mlp() -> nn.Module:
    """Batch normalisation and dropout, as tables are often learned."""
    layers: list[nn.Module] = []
    for inputs in (20, 32):
        layers += [nn.Linear(inputs, 32), nn.BatchNorm1d(32), nn.LeakyReLU(), nn.Dropout(0.1)]
    return nn.Sequential(*layers, nn.Linear(32, CLASSES))


def autoencoder() -> nn.Module:
    """Through a bottleneck of 6 numbers."""
    encoder = [nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 6)]
    return nn.Sequential(*encoder, nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 32))


def regressor() -> nn.Module:
    """Two numbers from eight."""
    return nn.Sequential(nn.Linear(8, 32), nn.Softplus(), nn.Linear(32, 32), nn.Mish(), nn.Linear(32, 2))


def multi_label() -> nn.Module:
    """Several answers at once."""
    return nn.Sequential(nn.Linear(24, 48), nn.GELU(), nn.Linear(48, CLASSES))


class MatrixFactorisation(nn.Module):
    """A rating from the embeddings of user and item: Koren et al. 2009."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(USERS, 8), nn.Embedding(USERS, 8)
        self.user_bias, self.item_bias = nn.Embedding(USERS, 1), nn.Embedding(USERS, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Ids f32[B, 2] to f32[B, 1]."""
        user, item = token_ids(inputs).unbind(1)
        match = (self.users(user) * self.items(item)).sum(dim=1, keepdim=True)
        rating: Tensor = match + self.user_bias(user) + self.item_bias(item)
        return rating


class MixtureOfExperts(nn.Module):
    """Four experts, weighed by a gate: Jacobs et al. 1991."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(16, 4)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, CLASSES)) for _ in range(4)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """f32[B, 16] to scores."""
        weights = functional.softmax(self.gate(inputs), dim=1).unsqueeze(2)
        answers = torch.stack([expert(inputs) for expert in self.experts], dim=1)
        return (weights * answers).sum(dim=1)


class DeepSets(nn.Module):
    """The sum and the largest of what is learned of each element: Zaheer et al. 2017."""

    def __init__(self) -> None:
        super().__init__()
        self.element = nn.Sequential(nn.Linear(3, 24), nn.ReLU(), nn.Linear(24, 24))
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(48, CLASSES))

    def forward(self, inputs: Tensor) -> Tensor:
        """f32[B, N, 3] to scores."""
        elements = self.element(inputs)
        scores: Tensor = self.head(torch.cat([elements.sum(dim=1), elements.amax(dim=1)], dim=1))
        return scores


class GraphConvolution(nn.Module):
    """Two layers over a ring of nodes: Kipf & Welling 2017."""

    links: Tensor

    def __init__(self) -> None:
        super().__init__()
        ring = torch.eye(NODES) + torch.eye(NODES).roll(1, 0) + torch.eye(NODES).roll(-1, 0)
        self.register_buffer("links", ring / 3)
        self.first, self.second, self.head = nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        """f32[B, NODES, 4] to scores."""
        hidden = functional.relu(self.links @ self.first(inputs))
        hidden = functional.relu(self.links @ self.second(hidden))
        scores: Tensor = self.head(hidden.mean(dim=1))
        return scores
