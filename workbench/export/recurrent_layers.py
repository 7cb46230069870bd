"""GRU and LSTM, unrolled over the sequence, as few operators per step as their equations allow.

What depends on the inputs alone is one matrix product for the whole sequence, before the first step.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from workbench.export.layer_context import UnexportableError

Cell = Callable[[Tensor, Tensor | None, Tensor, Sequence[Tensor]], tuple[Tensor, ...]]
"""One step: what the inputs contribute f32[B, gates * H], recurrent bias and weight, and the state, to the new state.
`state[0]` is the output."""


def gru(_context: object, _name: str, part: nn.GRU, inputs: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`nn.GRU.forward` for a batch: outputs and last state, as torch orders them."""
    outputs, (hidden,) = _run(part, inputs, None if hx is None else (hx,), _gru_cell, states=1)
    return outputs, hidden


def lstm(
    _context: object, _name: str, part: nn.LSTM, inputs: Tensor, hx: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """`nn.LSTM.forward` for a batch: outputs, and last state and cell.

    Raises:
        UnexportableError: the LSTM projects its state (`proj_size`).
    """
    if part.proj_size:
        raise UnexportableError("it projects its state (proj_size); use a Linear layer behind it instead")
    outputs, (hidden, cell) = _run(part, inputs, hx, _lstm_cell, states=2)
    return outputs, (hidden, cell)


def _run(
    part: nn.RNNBase,
    inputs: Tensor,
    initial: Sequence[Tensor] | None,
    cell: Cell,
    states: int,
) -> tuple[Tensor, list[Tensor]]:
    """All layers and directions of a recurrent module on f32[B, T, F], or f32[T, B, F] without `batch_first`."""
    values = inputs.transpose(0, 1) if part.batch_first else inputs
    finals: list[Sequence[Tensor]] = []
    for layer in range(part.num_layers):
        if layer and part.dropout:
            values = functional.dropout(values, part.dropout, part.training)
        directions = []
        for suffix in ("", "_reverse")[: 2 if part.bidirectional else 1]:
            place = len(finals)
            zero = values.new_zeros(values.shape[1], part.hidden_size)
            state = [zero] * states if initial is None else [entry[place] for entry in initial]
            outputs, final = _run_layer(part, f"l{layer}{suffix}", values, state, cell)
            directions.append(outputs)
            finals.append(final)
        values = torch.cat(directions, dim=-1) if part.bidirectional else directions[0]
    last = [torch.stack([final[number] for final in finals]) for number in range(states)]
    return values.transpose(0, 1) if part.batch_first else values, last


def _run_layer(
    part: nn.RNNBase,
    suffix: str,
    values: Tensor,
    state: Sequence[Tensor],
    cell: Cell,
) -> tuple[Tensor, Sequence[Tensor]]:
    """One layer in one direction on f32[T, B, F]: outputs f32[T, B, H] and the final state."""
    weight, recurrent = getattr(part, f"weight_ih_{suffix}"), getattr(part, f"weight_hh_{suffix}")
    bias = getattr(part, f"bias_ih_{suffix}") if part.bias else None
    recurrent_bias = getattr(part, f"bias_hh_{suffix}") if part.bias else None
    steps = list(functional.linear(values, weight, bias).unbind(0))
    outputs = []
    for step in reversed(steps) if suffix.endswith("reverse") else steps:
        state = cell(step, recurrent_bias, recurrent, state)
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if suffix.endswith("reverse") else outputs), state


def _gru_cell(step: Tensor, bias: Tensor | None, recurrent: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Cho et al. 2014, with torch's reset gate: on the recurrent part of the candidate, bias included."""
    (hidden,) = state
    size = hidden.shape[1]
    from_inputs, from_hidden = (
        torch.split_with_sizes(step, [2 * size, size], 1),
        functional.linear(hidden, recurrent, bias),
    )
    gates_hidden, candidate_hidden = torch.split_with_sizes(from_hidden, [2 * size, size], 1)
    reset, update = torch.split_with_sizes(torch.sigmoid(from_inputs[0] + gates_hidden), [size, size], 1)
    candidate = torch.tanh(from_inputs[1] + reset * candidate_hidden)
    return (candidate + update * (hidden - candidate),)


def _lstm_cell(step: Tensor, bias: Tensor | None, recurrent: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Hochreiter & Schmidhuber 1997 with a forget gate; torch's order of gates: input, forget, candidate, output."""
    hidden, cell = state
    size = hidden.shape[1]
    gates = step + functional.linear(hidden, recurrent, bias)
    entry, forget, candidate, output = torch.split_with_sizes(gates, [size] * 4, 1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(entry) * torch.tanh(candidate)
    return torch.sigmoid(output) * torch.tanh(cell), cell
