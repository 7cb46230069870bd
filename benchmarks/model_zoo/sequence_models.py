"""Models of sequences f32[B, T, F], and of token ids f32[B, T]."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.model_zoo.blocks import CLASSES, Applied, Residual, channels_first, last_step, mean_step, token_ids

TOKENS = 40


class LastStep(nn.Module):
    """A recurrent layer, and a linear head on its last output."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        width = (layer.proj_size or layer.hidden_size) * (2 if layer.bidirectional else 1)
        self.layer, self.head = layer, nn.Linear(width, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        """f32[B, T, F] to scores."""
        scores: Tensor = self.head(self.layer(inputs)[0][:, -1])
        return scores


def gru() -> nn.Module:
    """As in `benchmarks.train_step`."""
    return LastStep(nn.GRU(6, 16, batch_first=True))


def deep_gru() -> nn.Module:
    """Two layers in both directions."""
    return LastStep(nn.GRU(6, 16, num_layers=2, bidirectional=True, batch_first=True))


def lstm() -> nn.Module:
    """128 steps."""
    return LastStep(nn.LSTM(6, 32, batch_first=True))


def both_ways_lstm() -> nn.Module:
    """Forwards and backwards."""
    return LastStep(nn.LSTM(8, 32, bidirectional=True, batch_first=True))


def deep_lstm() -> nn.Module:
    """Two layers with dropout between them."""
    return LastStep(nn.LSTM(6, 24, num_layers=2, dropout=0.2, batch_first=True))


def projected_lstm() -> nn.Module:
    """Its state is projected, and it has no bias."""
    return LastStep(nn.LSTM(6, 32, proj_size=12, bias=False, batch_first=True))


def elman() -> nn.Module:
    """`nn.RNN`."""
    return LastStep(nn.RNN(6, 24, batch_first=True))


class AttentionPool(nn.Module):
    """A GRU whose outputs are weighed by attention: Bahdanau et al. 2015."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.look, self.head = nn.GRU(6, 16, batch_first=True), nn.Linear(16, 1), nn.Linear(16, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        """f32[B, T, 6] to scores."""
        outputs = self.layer(inputs)[0]
        weights = functional.softmax(self.look(outputs), dim=1)
        scores: Tensor = self.head((weights * outputs).sum(dim=1))
        return scores


class OwnLoop(nn.Module):
    """A loop over `nn.GRUCell`, written out."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(6, 16), nn.Linear(16, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        """f32[B, T, 6] to scores."""
        hidden = inputs.new_zeros(inputs.shape[0], 16)
        for step in inputs.unbind(1):
            hidden = self.cell(step, hidden)
        scores: Tensor = self.head(hidden)
        return scores


def text_lstm() -> nn.Module:
    """Embedded tokens through an LSTM."""
    return nn.Sequential(Applied(token_ids), nn.Embedding(TOKENS, 12), LastStep(nn.LSTM(12, 24, batch_first=True)))


def conv_1d() -> nn.Module:
    """Strided convolutions over time."""
    layers: list[nn.Module] = [Applied(channels_first)]
    for inputs, outputs in ((6, 16), (16, 24), (24, 32)):
        layers += [nn.Conv1d(inputs, outputs, 5, 2, 2), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, CLASSES))


class Causal(nn.Module):
    """A dilated convolution that sees the past alone."""

    def __init__(self, inputs: int, outputs: int, spread: int) -> None:
        super().__init__()
        self.layer, self.past = nn.Conv1d(inputs, outputs, 3, padding=2 * spread, dilation=spread), 2 * spread

    def forward(self, inputs: Tensor) -> Tensor:
        """f32[B, C, T] to f32[B, D, T]."""
        outputs: Tensor = self.layer(inputs)[..., : -self.past]
        return outputs


def temporal_cnn() -> nn.Module:
    """Residual causal convolutions: Bai et al. 2018."""
    blocks = [Residual(nn.Sequential(Causal(16, 16, spread), nn.ReLU(), nn.Dropout(0.1))) for spread in (1, 2, 4)]
    last = Applied(lambda values: values[..., -1])
    return nn.Sequential(Applied(channels_first), nn.Conv1d(6, 16, 1), *blocks, last, nn.Linear(16, CLASSES))


class Gated(nn.Module):
    """A causal convolution with a gate: van den Oord et al. 2016."""

    def __init__(self, channels: int, spread: int) -> None:
        super().__init__()
        self.layer = Causal(channels, 2 * channels, spread)

    def forward(self, inputs: Tensor) -> Tensor:
        """f32[B, C, T] to the same."""
        value, gate = self.layer(inputs).chunk(2, dim=1)
        return inputs + torch.tanh(value) * torch.sigmoid(gate)


def gated_cnn() -> nn.Module:
    """Four such layers, and the largest of each channel."""
    layers = [Gated(16, spread) for spread in (1, 2, 4, 8)]
    pool = [nn.MaxPool1d(4), nn.Flatten(), nn.Linear(16 * 16, CLASSES)]
    return nn.Sequential(Applied(channels_first), nn.Conv1d(6, 16, 1), *layers, *pool)


def transformer() -> nn.Module:
    """Two encoder layers on embedded tokens: Vaswani et al. 2017."""
    layers = [nn.TransformerEncoderLayer(24, 4, 48, 0.1, batch_first=True) for _ in range(2)]
    return nn.Sequential(
        Applied(token_ids), nn.Embedding(TOKENS, 24), *layers, Applied(mean_step), nn.Linear(24, CLASSES)
    )


def causal_transformer() -> nn.Module:
    """A decoder that predicts from its last position: Radford et al. 2018."""
    blocks = [Residual(nn.Sequential(nn.LayerNorm(24), CausalAttention(rotates=False))) for _ in range(2)]
    return nn.Sequential(nn.Linear(6, 24), *blocks, Applied(last_step), nn.Linear(24, CLASSES))


def rope_transformer() -> nn.Module:
    """The same with rotary positions: Su et al. 2021."""
    blocks = [Residual(nn.Sequential(nn.RMSNorm(24), CausalAttention(rotates=True))) for _ in range(2)]
    return nn.Sequential(nn.Linear(6, 24), *blocks, Applied(mean_step), nn.Linear(24, CLASSES))


class CausalAttention(nn.Module):
    """Four heads; each position sees itself and those before it."""

    angles: Tensor

    def __init__(self, *, rotates: bool) -> None:
        super().__init__()
        self.mix, self.out, self.rotates = nn.Linear(24, 72), nn.Linear(24, 24), rotates
        rates = 100.0 ** -(torch.arange(3) / 3)
        self.register_buffer("angles", torch.arange(16).unsqueeze(1) * rates.repeat(2))

    def forward(self, inputs: Tensor) -> Tensor:
        """f32[B, 16, 24] to the same."""
        query, key, value = self.mix(inputs).reshape(-1, 16, 3, 4, 6).permute(2, 0, 3, 1, 4).unbind(0)
        if self.rotates:
            query, key = self._rotated(query), self._rotated(key)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        outputs: Tensor = self.out(seen.transpose(1, 2).reshape(-1, 16, 24))
        return outputs

    def _rotated(self, values: Tensor) -> Tensor:
        first, second = values.chunk(2, dim=-1)
        return values * self.angles.cos() + torch.cat([-second, first], dim=-1) * self.angles.sin()
