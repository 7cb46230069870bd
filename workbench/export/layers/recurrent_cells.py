"""One step of LSTM, GRU and RNN, forward and, derived by hand, backward.

Every value has the rows of the batch as its last axis, so that the gates of a cell are contiguous.
"""

import torch

from workbench.export.layers.recurrence import Tensors, repeatable


@repeatable
def lstm_step(states: Tensors, entries: Tensors, fixed: Tensors) -> tuple[Tensors, Tensors]:
    """Hochreiter & Schmidhuber 1997 with a forget gate. Gates come in the order input, forget, output, candidate.

    Gives the three gates f32[H, B], the candidate, what of it enters, what is left of the old cell, and
    tanh of the new one.
    """
    (hidden, cell), (from_inputs,), (recurrent, *projection) = states, entries, fixed
    size = cell.shape[0]
    before_gates, before_candidate = torch.split_with_sizes(
        torch.addmm(from_inputs, recurrent, hidden), [3 * size, size]
    )
    entry, forget, output = torch.split_with_sizes(torch.sigmoid(before_gates), [size] * 3)
    candidate = torch.tanh(before_candidate)
    entered, left = entry * candidate, forget * cell
    cell = left + entered
    bounded = torch.tanh(cell)
    hidden = output * bounded
    made = entry, forget, output, candidate, entered, left, bounded
    return (projection[0] @ hidden if projection else hidden, cell), made


@repeatable
def lstm_step_back(states: Tensors, entries: Tensors, fixed: Tensors) -> tuple[Tensors, Tensors]:
    """The gradients of hidden state and of what is left of the cell, one step back; gives those before the gates."""
    (of_hidden, of_left), (to_cell, to_gates, forget, of_output), (recurrent, *projection) = states, entries, fixed
    of_raw = projection[0] @ of_hidden if projection else of_hidden
    of_cell = of_raw * to_cell + of_left
    of_gates = torch.cat([of_cell, of_cell, of_raw, of_cell]) * to_gates
    return (torch.addmm(of_output, recurrent, of_gates), of_cell * forget), (of_gates,)


@repeatable
def gru_step(states: Tensors, entries: Tensors, fixed: Tensors) -> tuple[Tensors, Tensors]:
    """Cho et al. 2014, with torch's reset gate: on the recurrent part of the candidate, bias included.

    Gives the gates f32[2 * H, B] (reset, update), the candidate, its recurrent part before the reset, and how far the
    old state is from the candidate.
    """
    (hidden,), (to_gates, to_candidate), (recurrent, bias) = states, entries, fixed
    size = hidden.shape[0]
    from_hidden, recalled = torch.split_with_sizes(torch.addmm(bias, recurrent, hidden), [2 * size, size])
    gates = torch.sigmoid(to_gates + from_hidden)
    reset, update = torch.split_with_sizes(gates, [size, size])
    candidate = torch.tanh(to_candidate + reset * recalled)
    distance = hidden - candidate
    return (candidate + update * distance,), (gates, candidate, recalled, distance)


@repeatable
def gru_step_back(states: Tensors, entries: Tensors, fixed: Tensors) -> tuple[Tensors, Tensors]:
    """The gradient of the hidden state, one step back.

    Gives those of what the state contributes f32[3 * H, B], and of what the inputs contribute to the candidate.
    """
    (of_hidden,), (factors, to_candidate, update, of_output), (recurrent,) = states, entries, fixed
    by_state = torch.cat([of_hidden, of_hidden, of_hidden]) * factors
    return (torch.addmm(of_output, recurrent, by_state) + of_hidden * update,), (by_state, of_hidden * to_candidate)


@repeatable
def tanh_step(states: Tensors, entries: Tensors, fixed: Tensors) -> tuple[Tensors, Tensors]:
    """Elman 1990. Gives what goes into the activation."""
    before = torch.addmm(entries[0], fixed[0], states[0])
    return (torch.tanh(before),), (before,)


@repeatable
def relu_step(states: Tensors, entries: Tensors, fixed: Tensors) -> tuple[Tensors, Tensors]:
    """The same with ReLU."""
    before = torch.addmm(entries[0], fixed[0], states[0])
    return (torch.relu(before),), (before,)


@repeatable
def rnn_step_back(states: Tensors, entries: Tensors, fixed: Tensors) -> tuple[Tensors, Tensors]:
    """The gradient of the hidden state, one step back; gives the one before the activation."""
    (of_hidden,), (slope, of_output), (recurrent,) = states, entries, fixed
    before = of_hidden * slope
    return (torch.addmm(of_output, recurrent, before),), (before,)
