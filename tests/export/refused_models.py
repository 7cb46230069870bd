"""Small models that can't be exported, each with the sentence that says so and a model that follows its advice."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, rnn
from torch.utils.checkpoint import checkpoint

from tests.export.test_layers import Tokens
from tests.support.training import with_head

VECTOR, IMAGE, VOLUME, SEQUENCE = (8,), (2, 8, 8), (1, 6, 6, 6), (3, 8)
Make = Callable[[], nn.Module]
BORDERS = torch.tensor([-1.0, 0.0, 1.0])
EYE = torch.eye(6)
EVEN = torch.arange(6) % 2 == 0
EVEN_PLACES = EVEN.nonzero().flatten()


@dataclass(frozen=True, slots=True)
class Refusal:
    """A model, what is said of it, and one that does what it is advised; `inputs` is a sample's shape."""

    model: Make
    sentence: str
    remedied: Make
    inputs: tuple[int, ...] = VECTOR
    per_sample: bool = False


class Apply(nn.Module):
    """A function of a module's parts and its inputs, as `forward`."""

    def __init__(self, function: Callable[..., Tensor], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.function(self, inputs)


def between(function: Callable[..., Tensor], **parts: Callable[[], nn.Module | Tensor]) -> Make:
    """Makes a model that has the function between two linear layers, as its module '1'."""
    return lambda: nn.Sequential(
        nn.Linear(8, 6), Apply(function, **{name: make() for name, make in parts.items()}), nn.Linear(6, 4)
    )


def behind(*makes: Make) -> Make:
    """Makes a model of these layers and a head."""
    return lambda: with_head(*(make() for make in makes))


class Doubled(torch.autograd.Function):
    """Twice its inputs, in the older form."""

    @staticmethod
    def forward(ctx: object, inputs: Tensor) -> Tensor:
        return inputs * 2

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient * 2


class DoubledWithContext(Doubled):
    """The same, in the form that torch.func can differentiate."""

    @staticmethod
    def forward(inputs: Tensor) -> Tensor:
        return inputs * 2

    @staticmethod
    def setup_context(ctx: object, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        pass


class Centred(nn.Module):
    """Takes off a moving mean over batches, which it keeps in a buffer."""

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, inputs: Tensor) -> Tensor:
        if self.in_place:
            self.mean.mul_(0.9).add_(0.1 * inputs.detach().mean(0))
        else:
            self.mean = 0.9 * self.mean + 0.1 * inputs.detach().mean(0)
        return inputs - self.mean


def written_into(inputs: Tensor) -> Tensor:
    inputs[:, 0] = 0
    inputs[:, :, 1] = inputs[:, :, 2]
    return inputs


def with_diagonal(inputs: Tensor) -> Tensor:
    square = inputs.unsqueeze(-1) * inputs.unsqueeze(1)
    square.diagonal(dim1=1, dim2=2).add_(1.0)
    return square.sum(1)


def connected(inputs: Tensor) -> Tensor:
    return (inputs.unsqueeze(-1) * inputs.unsqueeze(1) + EYE).sum(1)


def packed(part: nn.Module, inputs: Tensor) -> Tensor:
    lengths = torch.full((inputs.shape[0],), 3)
    return part.layer(rnn.pack_padded_sequence(inputs, lengths, batch_first=True))[1][0]


def connectionist(_: nn.Module, inputs: Tensor) -> Tensor:
    rows = inputs.shape[0]
    lengths, target = torch.ones(rows, dtype=torch.long), torch.ones(rows, 1, dtype=torch.long)
    return inputs + functional.ctc_loss(inputs.log_softmax(-1).unsqueeze(0), target, lengths, lengths)


def orthogonal_columns(part: nn.Module, inputs: Tensor) -> Tensor:
    """Gram-Schmidt, as far as the second column."""
    first = functional.normalize(part.weight[:, 0], dim=0)
    second = part.weight[:, 1] - first * (first * part.weight[:, 1]).sum()
    return inputs @ torch.cat([first.unsqueeze(1), functional.normalize(second, dim=0).unsqueeze(1), EYE[:, 2:]], 1)


def inverse_by_newton(part: nn.Module, inputs: Tensor) -> Tensor:
    guess = EYE / 2
    for _ in range(2):
        guess = guess @ (2 * EYE - part.weight @ guess)
    return inputs @ guess


def stirling(_: nn.Module, inputs: Tensor) -> Tensor:
    x = inputs.abs() + 1
    return (x - 0.5) * x.log() - x + 0.919 + 1 / (12 * x)


def square() -> Tensor:
    return torch.eye(6) + torch.randn(6, 6) / 10


def plain() -> nn.Module:
    return nn.Linear(6, 6)


COUNTED = between(lambda _, x: x * (x.unsqueeze(-1) > BORDERS).sum(-1))
TRACKED = between(lambda part, x: part.norm(x), norm=lambda: nn.BatchNorm1d(6, affine=False))
CONVOLUTION = behind(lambda: nn.Conv2d(2, 4, 3), lambda: nn.Conv2d(4, 4, 3))
LAST_STEP = lambda part, x: part.layer(x)[0][:, -1]  # noqa: E731 - one of many functions of a part and its inputs

UNKNOWN_OPERATORS = {
    "_cdist_forward": (
        between(lambda part, x: torch.cdist(x, part.centres), centres=square),
        between(lambda part, x: (x.unsqueeze(1) - part.centres).norm(dim=-1), centres=square),
    ),
    "_ctc_loss": (between(connectionist), between(lambda _, x: x)),
    "_embedding_bag": (
        behind(
            Tokens, lambda: Apply(lambda part, x: functional.embedding_bag(x, part.weight), weight=torch.randn(10, 3))
        ),
        behind(Tokens, lambda: nn.EmbeddingBag(10, 3)),
    ),
    "_linalg_svd": (
        between(lambda part, x: x @ part.weight / torch.linalg.svdvals(part.weight)[0], weight=square),
        between(lambda part, x: part.layer(x), layer=lambda: parametrizations.spectral_norm(plain())),
    ),
    "_upsample_bilinear2d_aa": (
        behind(lambda: nn.Conv2d(2, 4, 3), lambda: Apply(lambda _, x: resized(x, antialias=True))),
        behind(lambda: nn.Conv2d(2, 4, 3), lambda: Apply(lambda _, x: resized(x, antialias=False))),
    ),
    "as_strided_scatter": (
        behind(lambda: nn.Conv1d(3, 4, 1), lambda: Apply(lambda _, x: written_into(x.transpose(1, 2).clone()))),
        behind(lambda: nn.Conv1d(3, 4, 1), lambda: Apply(lambda _, x: written_into(x.transpose(1, 2).contiguous()))),
    ),
    "bucketize": (between(lambda _, x: x * torch.bucketize(x, BORDERS)), COUNTED),
    "cummax": (between(lambda _, x: x.cummax(1)[0]), between(lambda _, x: x.logcumsumexp(1))),
    "diagonal": (
        between(lambda _, x: torch.diag_embed(x).diagonal(dim1=1, dim2=2)),
        between(lambda _, x: (x.unsqueeze(-1) * torch.eye(6)).sum(1)),
    ),
    "diagonal_scatter": (between(lambda _, x: with_diagonal(x)), between(lambda _, x: connected(x))),
    "erfinv": (
        between(lambda _, x: torch.erfinv(x.clamp(-0.9, 0.9))),
        between(lambda _, x: torch.atanh(x.clamp(-0.9, 0.9))),
    ),
    "grid_sampler_2d": (
        behind(
            lambda: nn.Conv2d(2, 4, 3),
            lambda: Apply(
                lambda part, x: functional.grid_sample(x, part.grid.expand(x.shape[0], 4, 4, 2), align_corners=False),
                grid=torch.zeros(1, 4, 4, 2),
            ),
        ),
        CONVOLUTION,
    ),
    "histc": (
        between(lambda _, x: x * torch.histc(x, 2)[0]),
        between(lambda _, x: x * (x > -1).logical_and(x <= 0).sum(-1, keepdim=True)),
    ),
    "index_put": (between(lambda _, x: x[:, EVEN].repeat(1, 2)), between(lambda _, x: x[:, EVEN_PLACES].repeat(1, 2))),
    "kthvalue": (
        between(lambda _, x: x - x.kthvalue(3, 1, keepdim=True)[0]),
        between(lambda _, x: x - x.sort(1)[0][:, 2:3]),
    ),
    "lgamma": (between(lambda _, x: torch.lgamma(x.abs() + 1)), between(stirling)),
    "linalg_householder_product": (
        between(
            lambda part, x: part.layer(x),
            layer=lambda: parametrizations.orthogonal(plain(), orthogonal_map="householder"),
        ),
        between(lambda part, x: part.layer(x), layer=lambda: parametrizations.weight_norm(plain())),
    ),
    "linalg_inv_ex": (
        between(lambda part, x: x @ torch.linalg.inv(part.weight), weight=square),
        between(inverse_by_newton, weight=square),
    ),
    "linalg_matrix_exp": (
        between(lambda part, x: x @ torch.matrix_exp(part.weight), weight=square),
        between(lambda part, x: x @ (EYE + part.weight + part.weight @ part.weight / 2), weight=square),
    ),
    "linalg_qr": (
        between(lambda part, x: x @ torch.linalg.qr(part.weight)[0], weight=square),
        between(orthogonal_columns, weight=square),
    ),
    "max_pool3d_with_indices": (
        behind(
            lambda: nn.Conv3d(1, 2, 1),
            lambda: Apply(lambda part, x: part.pool(x)[0], pool=nn.MaxPool3d(2, return_indices=True)),
        ),
        behind(lambda: nn.Conv3d(1, 2, 1), lambda: nn.MaxPool3d(2)),
    ),
    "median": (
        between(lambda _, x: x - x.median(1, keepdim=True)[0]),
        between(lambda _, x: x - x.sort(1)[0][:, 2:3]),
    ),
    "prod": (
        between(lambda _, x: x + x.prod(1, keepdim=True)),
        between(lambda _, x: x + x[:, :1] * x[:, 1:2] * x[:, 2:3]),
    ),
    "searchsorted": (between(lambda _, x: x * torch.searchsorted(BORDERS, x)), COUNTED),
}
"""By the operator: what uses it, and what was written instead. What each is called by torch is what it is named by."""


def resized(inputs: Tensor, *, antialias: bool) -> Tensor:
    return functional.interpolate(inputs, size=(4, 4), mode="bilinear", antialias=antialias)


REFUSALS = {
    "complex exponential": Refusal(
        between(lambda _, x: torch.exp(torch.complex(x, x)).real),
        r"module '1' \(Apply\) .*computes exp of complex numbers.*; compute it from z\.real and z\.imag",
        between(lambda _, x: torch.exp(x) * torch.cos(x)),
    ),
    "Hermitian transform": Refusal(
        between(lambda part, x: part.layer(torch.fft.ihfft(x).abs()), layer=lambda: nn.Linear(4, 6)),
        r"module '1' \(Apply\) .*complex numbers.*; compute it from the real and the imaginary parts; torch\.fft\.fft",
        between(lambda part, x: part.layer(torch.fft.rfft(x).abs() / 6), layer=lambda: nn.Linear(4, 6)),
    ),
    "long Fourier transform": Refusal(
        behind(lambda: nn.Conv1d(1, 1, 3), lambda: Apply(lambda _, x: torch.fft.rfft(x).abs().mean(-1))),
        r"module '1' \(Apply\) .*transforms 2398 values at once, more than 2048.*; transform windows .* x\.unfold\(\)",
        behind(
            lambda: nn.Conv1d(1, 1, 3), lambda: Apply(lambda _, x: torch.fft.rfft(x.unfold(-1, 8, 800)).abs().mean(-1))
        ),
        (1, 2400),
    ),
    "rows counted by len": Refusal(
        between(lambda _, x: x.reshape(len(x), 2, 3).flip(1).flatten(1)),
        r"module '1' \(Apply\) .*number of samples in a batch.*; write x\.shape\[0\] for it, not len\(x\)",
        between(lambda _, x: x.reshape(x.shape[0], 2, 3).flip(1).flatten(1)),
    ),
    "reentrant checkpoint": Refusal(
        between(lambda part, x: checkpoint(part.layer, x, use_reentrant=True), layer=plain),
        r"module '1' \(Apply\) .*recomputes activations .*; call the layer itself",
        between(lambda part, x: part.layer(x), layer=plain),
    ),
    "fractional pooling": Refusal(
        behind(lambda: nn.Conv2d(2, 4, 3), lambda: nn.FractionalMaxPool2d(2, output_size=3)),
        r"module '1' \(FractionalMaxPool2d\) .*draws random numbers .*; use nn.AdaptiveMaxPool2d instead of fractional",
        behind(lambda: nn.Conv2d(2, 4, 3), lambda: nn.AdaptiveMaxPool2d(3)),
        IMAGE,
    ),
    "autograd.Function": Refusal(
        between(lambda _, x: Doubled.apply(x)),
        r"module '1' \(Apply\) .*no setup_context; take ctx out of its forward\(\)",
        between(lambda _, x: DoubledWithContext.apply(x)),
    ),
    "checkpoint": Refusal(
        between(lambda part, x: checkpoint(part.layer, x, use_reentrant=False), layer=plain),
        r"module '1' \(Apply\) .*recomputes activations .*; call the layer itself",
        between(lambda part, x: part.layer(x), layer=plain),
    ),
    "packed sequence": Refusal(
        behind(lambda: Apply(packed, layer=nn.GRU(8, 6, batch_first=True))),
        r"module '0\.layer' \(GRU\) .*PackedSequence .*; give the padded sequences themselves",
        behind(lambda: Apply(LAST_STEP, layer=nn.GRU(8, 6, batch_first=True))),
        SEQUENCE,
    ),
    "value in a text": Refusal(
        between(lambda _, x: (f"{x.mean():.3f}", x)[1]),
        r"module '1' \(Apply\) .*into a text; leave out what prints",
        between(lambda _, x: (f"{x.shape}", x)[1]),
    ),
    "number of a value": Refusal(
        between(lambda _, x: x * float(x.detach().abs().mean())),
        r"module '1' \(Apply\) .*follows from the values of a tensor; keep the number a tensor",
        between(lambda _, x: x * x.detach().abs().mean(1, keepdim=True)),
    ),
    "branch on a value": Refusal(
        between(lambda _, x: x * 2 if x.sum() > 0 else x),
        r"module '1' \(Apply\) .*follows from the values of a tensor; .*torch\.where instead of if",
        between(lambda _, x: torch.where(x.sum(1, keepdim=True) > 0, x * 2, x)),
    ),
    "numpy": Refusal(
        between(lambda _, x: x * torch.from_numpy(x.detach().numpy())),
        r"module '1' \(Apply\) .*values out of torch \(numpy\); compute in torch",
        between(lambda _, x: x * x.detach()),
    ),
    "buffer in place": Refusal(
        lambda: nn.Sequential(nn.Linear(8, 6), Centred(in_place=True), nn.Linear(6, 4)),
        r"module '1' \(Centred\) .*changes a tensor in place that outlives the step; .*BatchNorm1d with affine=False",
        TRACKED,
    ),
    "buffer given a new value": Refusal(
        lambda: nn.Sequential(nn.Linear(8, 6), Centred(in_place=False), nn.Linear(6, 4)),
        r"module '1' \(Centred\) .*gives the buffer '1\.mean' a new value.*; .*BatchNorm1d with affine=False",
        TRACKED,
    ),
    "max_norm": Refusal(
        behind(Tokens, lambda: nn.Embedding(10, 3, max_norm=1.0)),
        r"module '1' \(Embedding\) .*changes its weights in place.*; leave max_norm out",
        behind(Tokens, lambda: nn.Embedding(10, 3)),
    ),
    "sparse": Refusal(
        between(lambda _, x: (torch.eye(6).to_sparse() @ x.T).T),
        r"module '1' \(Apply\) .*\(sparse, quantised\); use dense float32 tensors",
        between(lambda _, x: (torch.eye(6) @ x.T).T),
    ),
    "deviation over a batch": Refusal(
        between(lambda _, x: x / x.std(0)),
        r"module '1' \(Apply\) .*number of samples in a batch.*nn\.BatchNorm1d is what normalises over a batch",
        between(lambda part, x: part.norm(x), norm=lambda: nn.BatchNorm1d(6)),
    ),
    "bfloat16": Refusal(
        between(lambda _, x: x.bfloat16().tanh().float()),
        r"module '1' \(Apply\) .*bfloat16.*; compute in float32",
        between(lambda _, x: x.tanh()),
    ),
    "batch statistics per sample": Refusal(
        between(lambda part, x: part.norm(x), norm=lambda: nn.BatchNorm1d(6)),
        r"module '1\.norm' \(BatchNorm1d\) .*each sample has a gradient of its own; use GroupNorm",
        between(lambda part, x: part.norm(x), norm=lambda: nn.GroupNorm(2, 6)),
        per_sample=True,
    ),
    "instance statistics per sample": Refusal(
        behind(lambda: nn.Conv2d(2, 4, 3), lambda: nn.InstanceNorm2d(4, track_running_stats=True)),
        r"module '1' \(InstanceNorm2d\) .*gradient of its own; use track_running_stats=False",
        behind(lambda: nn.Conv2d(2, 4, 3), lambda: nn.InstanceNorm2d(4)),
        IMAGE,
        per_sample=True,
    ),
    "spectral norm per sample": Refusal(
        between(lambda part, x: part.layer(x), layer=lambda: parametrizations.spectral_norm(plain())),
        r"\(_SpectralNorm\) .*gradient of its own; use torch\.nn\.utils\.parametrizations\.weight_norm",
        between(lambda part, x: part.layer(x), layer=lambda: parametrizations.weight_norm(plain())),
        per_sample=True,
    ),
    "mean over all batches": Refusal(
        between(lambda part, x: part.norm(x), norm=lambda: nn.BatchNorm1d(6, momentum=None)),
        r"module '1\.norm' \(BatchNorm1d\) .*all batches ever seen.*; give it a momentum",
        between(lambda part, x: part.norm(x), norm=lambda: nn.BatchNorm1d(6, momentum=0.1)),
    ),
    "bags by offsets": Refusal(
        behind(Tokens, lambda: Apply(by_offsets, bag=nn.EmbeddingBag(10, 3))),
        r"module '1\.bag' \(EmbeddingBag\) .*offsets have lengths.*; give one row of ids per sample",
        behind(Tokens, lambda: nn.EmbeddingBag(10, 3)),
    ),
    "bag with max_norm": Refusal(
        behind(Tokens, lambda: nn.EmbeddingBag(10, 3, max_norm=1.0)),
        r"module '1' \(EmbeddingBag\) .*max_norm reads or changes weights.*; leave max_norm out",
        behind(Tokens, lambda: nn.EmbeddingBag(10, 3)),
    ),
    "one sample without a batch": Refusal(
        behind(lambda: Apply(lambda part, x: part.layer(x)[0], layer=nn.GRU(8, 6))),
        r"module '0\.layer' \(GRU\) .*it gets 2 axes where a batch of sequences has 3; add the axis of the batch",
        behind(lambda: Apply(lambda part, x: part.layer(x.unsqueeze(1))[0], layer=nn.GRU(8, 6, batch_first=True))),
    ),
    "random order": Refusal(
        between(lambda _, x: x + 0 * x[:, torch.randperm(6)]),
        r"module '1' \(Apply\) .*it calls randperm, which draws random numbers; draw with torch\.rand",
        between(lambda _, x: x + 0 * x[:, torch.rand(6).argsort()]),
    ),
    "native dropout": Refusal(
        between(lambda _, x: torch.native_dropout(x, 0.5, train=True)[0]),
        r"draws random numbers with \S+, which no seed reaches; draw with torch\.rand",
        between(lambda _, x: x + 0 * x * torch.bernoulli(torch.full_like(x, 0.5))),
    ),
    "many whole numbers": Refusal(
        between(lambda _, x: x + 0 * torch.randint(0, 1 << 24, (6,))),
        r"module '1' \(Apply\) .*draws whole numbers from 0 to 16777216; draw from at most 8388608 numbers",
        between(lambda _, x: x + 0 * torch.randint(0, 1 << 23, (6,))),
    ),
    "steps along the batch": Refusal(
        behind(lambda: Apply(LAST_STEP, layer=nn.GRU(8, 6))),
        r"module '0\.layer' \(GRU\) .*its steps are the rows of the batch; give it batch_first=True",
        behind(lambda: Apply(LAST_STEP, layer=nn.GRU(8, 6, batch_first=True))),
        SEQUENCE,
    ),
}
"""By what they do; `UNKNOWN_OPERATORS` are more of them."""


def by_offsets(part: nn.Module, tokens: Tensor) -> Tensor:
    return part.bag(tokens.flatten(), torch.arange(tokens.shape[0]) * tokens.shape[1])
