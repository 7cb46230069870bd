"""Fourier transforms as products with fixed matrices of cosines and sines, which ONNX and every gradient know."""

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from workbench.export.layers.complex_numbers import ComplexPair, pair_of
from workbench.export.layers.layer_context import UnexportableError

LONGEST: Final = 2048
"""Values of one transform: its two matrices take 16 MiB."""
Numbers = Tensor | ComplexPair


def fft(inputs: Numbers, n: int | None = None, dim: int = -1, norm: str | None = None) -> ComplexPair:
    """`torch.fft.fft`: of real or complex numbers, along one axis."""
    return _transformed(inputs, n, dim, _scale(norm, _length(inputs, n, dim), inverse=False), sign=-1)


def ifft(inputs: Numbers, n: int | None = None, dim: int = -1, norm: str | None = None) -> ComplexPair:
    """`torch.fft.ifft`."""
    return _transformed(inputs, n, dim, _scale(norm, _length(inputs, n, dim), inverse=True), sign=1)


def rfft(inputs: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> ComplexPair:
    """`torch.fft.rfft`: of real numbers, the half that says all."""
    length = _length(inputs, n, dim)
    return _transformed(inputs, n, dim, _scale(norm, length, inverse=False), sign=-1, kept=length // 2 + 1)


def irfft(inputs: Numbers, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """`torch.fft.irfft`: real numbers of which `inputs` are the half of the transform."""
    pair = pair_of(inputs)
    length = n or 2 * (pair.shape[dim] - 1)
    half = length // 2 + 1
    cosines, sines = _waves(half, length, length)
    twice = torch.tensor([[1.0 if k in {0, length - k} else 2.0] for k in range(half)])
    scale = _scale(norm, length, inverse=True)
    real, imag = (_resized(part, half, dim).movedim(dim, -1) for part in (pair.real, pair.imag))
    return (real @ (cosines * twice * scale) - imag @ (sines * twice * scale)).movedim(-1, dim)


def stft(  # noqa: PLR0917 - the signature of what it replaces
    input: Tensor,  # noqa: A002 - as above
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Numbers:
    """`torch.stft`: transforms of windows of f32[B, T] or f32[T], f32[..., frequencies, windows]."""
    padding = n_fft // 2 if center else 0
    signal = functional.pad(input.reshape(-1, 1, input.shape[-1]), (padding, padding), pad_mode) if center else input
    frames = signal.reshape(*input.shape[:-1], signal.shape[-1]).unfold(-1, n_fft, hop_length or n_fft // 4)
    width = win_length or n_fft
    left = (n_fft - width) // 2
    weights = torch.ones(width) if window is None else window
    frames = frames * functional.pad(weights, (left, n_fft - width - left))
    found = fft(frames) if onesided is False else rfft(frames)
    found = found * (n_fft**-0.5 if normalized else 1.0)
    pair = ComplexPair(found.real.transpose(-1, -2), found.imag.transpose(-1, -2))
    return pair if return_complex else torch.stack([pair.real, pair.imag], -1)


def _over_axes(
    transform: Callable[..., Numbers], last: Callable[..., Numbers], axes: Sequence[int], *, inverse: bool
) -> Callable[..., Numbers]:
    """A transform over several axes: `last` over the last of them, `transform` over the others."""

    def over(
        inputs: Numbers, s: Sequence[int] | None = None, dim: Sequence[int] | None = None, norm: str | None = None
    ) -> Numbers:
        along = list(axes if dim is None else dim)
        if dim is None and not axes:
            along = list(range(-len(inputs.shape) if s is None else -len(s), 0))
        sizes = dict(zip(along, s, strict=True)) if s else {}
        if not inverse:
            inputs = last(inputs, sizes.get(along[-1]), along[-1], norm)
        for axis in along[:-1]:
            inputs = transform(inputs, sizes.get(axis), axis, norm)
        return last(inputs, sizes.get(along[-1]), along[-1], norm) if inverse else inputs

    return over


def _transformed(
    inputs: Numbers, n: int | None, dim: int, scale: float, *, sign: int, kept: int | None = None
) -> ComplexPair:
    length = _length(inputs, n, dim)
    cosines, sines = (scale * waves for waves in _waves(length, kept or length, length))
    sines = sign * sines
    if isinstance(inputs, Tensor):
        rows = _resized(inputs, length, dim).movedim(dim, -1)
        real, imag = rows @ cosines, rows @ sines
    else:
        here, there = (_resized(part, length, dim).movedim(dim, -1) for part in (inputs.real, inputs.imag))
        real, imag = here @ cosines - there @ sines, here @ sines + there @ cosines
    return ComplexPair(real.movedim(-1, dim), imag.movedim(-1, dim))


def _length(inputs: Numbers, n: int | None, dim: int) -> int:
    length = n or inputs.shape[dim]
    if length > LONGEST:
        raise UnexportableError(
            f"it transforms {length} values at once, more than {LONGEST}, for which the matrices are too large",
            "transform windows of them, with torch.stft or x.unfold()",
        )
    return length


def _waves(rows: int, columns: int, period: int) -> tuple[Tensor, Tensor]:
    """f32[rows, columns] each: cosines and sines of 2 pi row column / period."""
    angles = np.outer(np.arange(rows), np.arange(columns)) % period * (2 * math.pi / period)
    return torch.tensor(np.cos(angles).tolist()), torch.tensor(np.sin(angles).tolist())


def _resized(part: Tensor, length: int, dim: int) -> Tensor:
    """Cut, or filled up with zeros, along one axis."""
    missing = length - part.shape[dim]
    if missing <= 0:
        return part.narrow(dim, 0, length) if missing else part
    return functional.pad(part, [0, 0] * (part.dim() - 1 - dim % part.dim()) + [0, missing])


def _scale(norm: str | None, length: int, *, inverse: bool) -> float:
    if norm == "ortho":
        return 1 / math.sqrt(length)
    return 1 / length if inverse == (norm in {None, "backward"}) else 1.0


TRANSFORMS: dict[Callable[..., object], Callable[..., object]] = {
    torch.fft.fft: fft,
    torch.fft.ifft: ifft,
    torch.fft.rfft: rfft,
    torch.fft.irfft: irfft,
    torch.fft.fft2: _over_axes(fft, fft, (-2, -1), inverse=False),
    torch.fft.ifft2: _over_axes(ifft, ifft, (-2, -1), inverse=True),
    torch.fft.rfft2: _over_axes(fft, rfft, (-2, -1), inverse=False),
    torch.fft.irfft2: _over_axes(ifft, irfft, (-2, -1), inverse=True),
    torch.fft.fftn: _over_axes(fft, fft, (), inverse=False),
    torch.fft.ifftn: _over_axes(ifft, ifft, (), inverse=True),
    torch.fft.rfftn: _over_axes(fft, rfft, (), inverse=False),
    torch.fft.irfftn: _over_axes(ifft, irfft, (), inverse=True),
    torch.stft: stft,
    Tensor.stft: stft,
    torch.complex: ComplexPair,
    torch.view_as_complex: lambda parts: ComplexPair(parts[..., 0], parts[..., 1]),
    torch.polar: lambda size, angle: ComplexPair(size * torch.cos(angle), size * torch.sin(angle)),
}
"""torch's function, and what runs instead."""
