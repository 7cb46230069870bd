"""LSTM, GRU and RNN layers: all layers and directions of a module, each run by `recurrent_gradients`."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from workbench.export.layers.layer_context import UnexportableError
from workbench.export.layers.recurrent_gradients import Gru, Lstm, Rnn

RunLayer = Callable[[nn.RNNBase, str, Tensor, Sequence[Tensor], bool], tuple[Tensor, ...]]
"""Module, suffix of its parameters, f32[T, F, B], state f32[H, B] each, backwards; to outputs and the last state."""


def gru(_context: object, _name: str, part: nn.GRU, inputs: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`nn.GRU.forward` for a batch: outputs and last state, as torch orders them."""
    outputs, (hidden,) = _run(part, inputs, None if hx is None else (hx,), _run_gru, [part.hidden_size])
    return outputs, hidden


def rnn(_context: object, _name: str, part: nn.RNN, inputs: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`nn.RNN.forward` for a batch: outputs and last state."""
    outputs, (hidden,) = _run(part, inputs, None if hx is None else (hx,), _run_rnn, [part.hidden_size])
    return outputs, hidden


def lstm(
    _context: object, _name: str, part: nn.LSTM, inputs: Tensor, hx: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """`nn.LSTM.forward` for a batch: outputs, and last state and cell."""
    sizes = [part.proj_size or part.hidden_size, part.hidden_size]
    outputs, (hidden, cell) = _run(part, inputs, hx, _run_lstm, sizes)
    return outputs, (hidden, cell)


def _run(
    part: nn.RNNBase, inputs: Tensor, initial: Sequence[Tensor] | None, run_layer: RunLayer, sizes: Sequence[int]
) -> tuple[Tensor, list[Tensor]]:
    """All layers and directions of a recurrent module on f32[B, T, F], or f32[T, B, F] without `batch_first`.

    Raises:
        UnexportableError: there is no batch, or its rows stand where the module looks for steps.
    """
    if inputs.dim() != 3:
        raise UnexportableError(
            f"it gets {inputs.dim()} axes where a batch of sequences has 3", "add the axis of the batch"
        )
    values = inputs.permute(1, 2, 0) if part.batch_first else inputs.transpose(1, 2)
    if not isinstance(values.shape[0], int):
        raise UnexportableError("its steps are the rows of the batch", "give it batch_first=True")
    finals: list[Sequence[Tensor]] = []
    for layer in range(part.num_layers):
        if layer and part.dropout:
            by_row = functional.dropout(
                values.permute(2, 0, 1), part.dropout, part.training
            )  # what a row loses is its own
            values = by_row.permute(1, 2, 0)
        directions = []
        for suffix in ("", "_reverse")[: 2 if part.bidirectional else 1]:
            if initial is None:
                state = [values.new_zeros(size, values.shape[2]) for size in sizes]
            else:
                state = [entry[len(finals)].T for entry in initial]
            outputs, *final = run_layer(part, f"l{layer}{suffix}", values, state, bool(suffix))
            directions.append(outputs)
            finals.append(final)
        values = torch.cat(directions, dim=1) if part.bidirectional else directions[0]
    last = [torch.stack([final[number].T for final in finals]) for number in range(len(sizes))]
    return values.permute(2, 0, 1) if part.batch_first else values.transpose(1, 2), last


def _run_lstm(
    part: nn.RNNBase, suffix: str, values: Tensor, state: Sequence[Tensor], backwards: bool
) -> tuple[Tensor, ...]:
    projection = getattr(part, f"weight_hr_{suffix}") if part.proj_size else None
    outputs, hidden, cell, *_ = Lstm.apply(  # type: ignore[no-untyped-call]
        values, *state, *_parameters(part, suffix), projection, backwards
    )
    return outputs, hidden, cell


def _run_gru(
    part: nn.RNNBase, suffix: str, values: Tensor, state: Sequence[Tensor], backwards: bool
) -> tuple[Tensor, ...]:
    outputs, hidden, *_ = Gru.apply(  # type: ignore[no-untyped-call]
        values, *state, *_parameters(part, suffix), backwards
    )
    return outputs, hidden


def _run_rnn(
    part: nn.RNNBase, suffix: str, values: Tensor, state: Sequence[Tensor], backwards: bool
) -> tuple[Tensor, ...]:
    outputs, hidden = Rnn.apply(  # type: ignore[no-untyped-call]
        values, *state, *_parameters(part, suffix), part.nonlinearity == "relu", backwards
    )
    return outputs, hidden


def _parameters(part: nn.RNNBase, suffix: str) -> tuple[Tensor | None, ...]:
    """Both weights and both biases of one layer in one direction."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return tuple(getattr(part, f"{name}_{suffix}", None) for name in names)
