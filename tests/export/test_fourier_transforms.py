"""Fourier transforms, and complex numbers as far as they go, train as torch's do."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.fft import fft, fft2, fftshift, ifft, irfft, irfft2, rfft, rfft2

from tests.export.refused_models import IMAGE, Apply, Make, behind
from tests.export.test_layers import SIGNAL
from tests.support.cases import cases
from tests.support.training import build, check_training

WINDOW = torch.hann_window(6)


def filtered(part: nn.Module, inputs: Tensor) -> Tensor:
    """A Fourier neural operator's layer: Li et al. 2021."""
    kept = rfft(inputs)[..., :3]
    return irfft(torch.einsum("bix,iox->box", kept, torch.view_as_complex(part.weight)), n=inputs.shape[-1])


def long_convolution(part: nn.Module, inputs: Tensor) -> Tensor:
    """A convolution as long as its inputs, as state-space models have it: Gu et al. 2022."""
    count = 2 * inputs.shape[-1]
    return irfft(rfft(inputs, n=count) * rfft(part.weight, n=count), n=count)[..., : inputs.shape[-1]]


def filtered_image(part: nn.Module, inputs: Tensor) -> Tensor:
    """Global filters: Rao et al. 2021."""
    weight = torch.view_as_complex(part.weight)
    return irfft2(rfft2(inputs, norm="ortho") * weight, s=inputs.shape[-2:], norm="ortho")


def rotated(_: nn.Module, inputs: Tensor) -> Tensor:
    """Rotary positions by complex numbers: Su et al. 2021."""
    angles = torch.outer(torch.arange(4.0), torch.arange(inputs.shape[-1] // 2) / 3)
    pairs = torch.view_as_complex(inputs.reshape(*inputs.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(2)


def spectrogram(_: nn.Module, inputs: Tensor) -> Tensor:
    return torch.stft(inputs[:, 0], 6, 3, window=WINDOW, normalized=True, return_complex=True).abs()


def short_time_parts(_: nn.Module, inputs: Tensor) -> Tensor:
    found = inputs[:, 1].stft(8, 2, win_length=6, window=WINDOW, center=False, return_complex=True)
    return torch.view_as_real(found).flatten(2)


def on_signal(function: Callable[[nn.Module, Tensor], Tensor], **parts: Callable[[], Tensor]) -> Make:
    return behind(lambda: nn.Conv1d(2, 4, 1), lambda: Apply(function, **{name: make() for name, make in parts.items()}))


def on_image(function: Callable[[nn.Module, Tensor], Tensor], **parts: Callable[[], Tensor]) -> Make:
    return behind(lambda: nn.Conv2d(2, 4, 1), lambda: Apply(function, **{name: make() for name, make in parts.items()}))


LAYERS = {
    "magnitude": (on_signal(lambda _, x: rfft(x).abs()), SIGNAL),
    "parts": (
        on_signal(lambda _, x: torch.cat([rfft(x, norm="ortho").real, rfft(x, norm="forward").imag], -1)),
        SIGNAL,
    ),
    "operator": (on_signal(filtered, weight=lambda: torch.randn(4, 4, 3, 2) / 4), SIGNAL),
    "long_convolution": (on_signal(long_convolution, weight=lambda: torch.randn(4, 12) / 4), SIGNAL),
    "autocorrelation": (on_signal(lambda _, x: ifft(fft(x, n=20) * fft(x, n=20).conj()).real / 20), SIGNAL),
    "rotary_positions": (on_signal(rotated), SIGNAL),
    "spectrogram": (on_signal(spectrogram), SIGNAL),
    "short_time_parts": (on_signal(short_time_parts), SIGNAL),
    "image_filter": (on_image(filtered_image, weight=lambda: torch.randn(4, 8, 5, 2) / 4), IMAGE),
    "mixed_tokens": (on_image(lambda _, x: fftshift(fft2(x), dim=(-2, -1)).real / 8), IMAGE),
    "quotient": (on_signal(lambda _, x: (1 - 2 * rfft(x) / (rfft(x.tanh()) + 9) + rfft(x).angle().sin()).real), SIGNAL),
    "magnitude_of_zero": (on_signal(lambda _, x: rfft(x * 0).abs() + x[..., :1]), SIGNAL),
}


SAME_OF_OTHERS = {"magnitude", "parts", "long_convolution", "autocorrelation", "rotary_positions"}
SAME_OF_OTHERS |= {"short_time_parts", "mixed_tokens"}


@pytest.mark.parametrize("name", cases(LAYERS, long=SAME_OF_OTHERS))
def test_transform_trains_as_torchs(name: str):
    check_training(*build(*LAYERS[name]))
