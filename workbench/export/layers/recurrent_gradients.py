"""LSTM, GRU and RNN over a whole sequence, one layer in one direction, with the backward pass derived by hand.

What doesn't go from step to step is computed for the whole sequence at once: what the inputs contribute before the
first step, the factors of the gradients before the backward pass, and all weight gradients, one product, behind it.
Values f32[T, F, B] have the rows of the batch as their last axis. Weights and biases are torch's.
"""

from typing import Any

import torch
from torch import Tensor

from workbench.export.layers.recurrence import repeat
from workbench.export.layers.recurrent_cells import (
    gru_step,
    gru_step_back,
    lstm_step,
    lstm_step_back,
    relu_step,
    rnn_step_back,
    tanh_step,
)

Gradients = tuple[Tensor | None, ...]


class Lstm(torch.autograd.Function):
    """Values f32[T, F, B], hidden f32[P, B], cell f32[H, B], weights f32[4 * H, F] and f32[4 * H, P], their biases
    f32[4 * H] or None, projection f32[P, H] or None, and whether to begin with the last entry.

    Gives the outputs f32[T, P, B] and the last hidden and cell state; then what the backward pass reads.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        """See the class."""
        values, hidden, cell, weight, recurrent, bias, recurrent_bias, projection, backwards = arguments
        summed = None if bias is None else _candidate_last(bias + recurrent_bias)
        from_inputs = _product(_candidate_last(weight), values, summed)
        fixed = [_candidate_last(recurrent), *([] if projection is None else [projection])]
        (hidden, cell), made = repeat(lstm_step, (hidden, cell), (from_inputs,), fixed, backwards=backwards)
        raw = made[2] * made[-1]
        outputs = raw if projection is None else _product(projection, raw)
        return outputs, hidden, cell, *made

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep what `backward` reads."""
        values, hidden, _, weight, recurrent, ctx.bias, _, projection, ctx.backwards = inputs
        ctx.mark_non_differentiable(*output[3:])
        ctx.save_for_backward(values, hidden, weight, recurrent, projection, output[0], *output[3:])

    @staticmethod
    def backward(ctx: Any, of_outputs: Tensor, of_hidden: Tensor, of_cell: Tensor, *_: object) -> Gradients:
        """Gradients of the arguments."""
        values, first, weight, recurrent, projection, outputs, *made = ctx.saved_tensors
        entry, forget, output, candidate, entered, left, bounded = made
        raw = output * bounded
        to_gates = torch.cat(
            [entered - entered * entry, left - left * forget, raw - raw * output, entry - entered * candidate], 1
        )
        last, earlier = _previous_gradients(of_outputs, backwards=ctx.backwards)
        turned = _candidate_last(recurrent).T
        (of_first, of_first_cell), (of_gates,) = repeat(
            lstm_step_back,
            (of_hidden + last, of_cell),
            (output - raw * bounded, to_gates, forget, earlier),
            [turned, *([] if projection is None else [projection.T])],
            backwards=not ctx.backwards,
        )
        of_weight, of_recurrent, of_bias = (
            _candidate_third(part)
            for part in _weight_gradients(of_gates, values, _previous(outputs, first, backwards=ctx.backwards))
        )
        of_projection = None
        if projection is not None:
            of_states = of_outputs + _previous(_product(turned, of_gates), of_hidden, backwards=not ctx.backwards)
            of_projection = _summed_product(of_states, raw)
        of_values = _product(_candidate_last(weight).T, of_gates)
        of_biases = [None if ctx.bias is None else of_bias] * 2
        return of_values, of_first, of_first_cell, of_weight, of_recurrent, *of_biases, of_projection, None


class Gru(torch.autograd.Function):
    """Values f32[T, F, B], hidden f32[H, B], weights f32[3 * H, F] and f32[3 * H, H], their biases f32[3 * H] or None,
    and whether to begin with the last entry.

    Gives the outputs f32[T, H, B] and the last hidden state; then what the backward pass reads.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        """See the class."""
        values, first, weight, recurrent, bias, recurrent_bias, backwards = arguments
        size = recurrent.shape[1]
        sequences = torch.split_with_sizes(_product(weight, values, bias), [2 * size, size], 1)
        added = recurrent.new_zeros(3 * size) if recurrent_bias is None else recurrent_bias
        (hidden,), (gates, candidate, recalled, distance) = repeat(
            gru_step, (first,), sequences, (recurrent, added.unsqueeze(1)), backwards=backwards
        )
        outputs = candidate + torch.split_with_sizes(gates, [size, size], 1)[1] * distance
        return outputs, hidden, gates, candidate, recalled, distance

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep what `backward` reads."""
        values, _, weight, recurrent, ctx.bias, _, ctx.backwards = inputs
        ctx.mark_non_differentiable(*output[2:])
        ctx.save_for_backward(values, weight, recurrent, *output[2:])

    @staticmethod
    def backward(ctx: Any, of_outputs: Tensor, of_hidden: Tensor, *_: object) -> Gradients:
        """Gradients of the arguments."""
        values, weight, recurrent, gates, candidate, recalled, distance = ctx.saved_tensors
        reset, update = torch.split_with_sizes(gates, [candidate.shape[1]] * 2, 1)
        rest = 1 - update
        to_candidate = rest - rest * candidate * candidate
        to_recalled = to_candidate * reset
        factors = torch.cat([to_recalled * recalled * (1 - reset), distance * update * rest, to_recalled], 1)
        last, earlier = _previous_gradients(of_outputs, backwards=ctx.backwards)
        (of_first,), (by_state, of_candidate) = repeat(
            gru_step_back,
            (of_hidden + last,),
            (factors, to_candidate, update, earlier),
            (recurrent.T,),
            backwards=not ctx.backwards,
        )
        by_inputs = torch.cat([by_state[:, : -candidate.shape[1]], of_candidate], 1)
        of_recurrent, of_recurrent_bias = _weight_gradients(by_state, distance + candidate)
        of_weight, of_bias = _weight_gradients(by_inputs, values)
        biases = (None, None) if ctx.bias is None else (of_bias, of_recurrent_bias)
        return _product(weight.T, by_inputs), of_first, of_weight, of_recurrent, *biases, None


class Rnn(torch.autograd.Function):
    """Values f32[T, F, B], hidden f32[H, B], weights f32[H, F] and f32[H, H], their biases f32[H] or None, whether the
    activation is ReLU instead of tanh, and whether to begin with the last entry.

    Gives the outputs f32[T, H, B] and the last hidden state.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        """See the class."""
        values, first, weight, recurrent, bias, recurrent_bias, is_relu, backwards = arguments
        from_inputs = _product(weight, values, None if bias is None else bias + recurrent_bias)
        step = relu_step if is_relu else tanh_step
        (hidden,), (before,) = repeat(step, (first,), (from_inputs,), (recurrent,), backwards=backwards)
        return torch.relu(before) if is_relu else torch.tanh(before), hidden

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep what `backward` reads."""
        values, first, weight, recurrent, ctx.bias, _, ctx.is_relu, ctx.backwards = inputs
        ctx.save_for_backward(values, first, weight, recurrent, output[0])

    @staticmethod
    def backward(ctx: Any, of_outputs: Tensor, of_hidden: Tensor) -> Gradients:
        """Gradients of the arguments."""
        values, first, weight, recurrent, outputs = ctx.saved_tensors
        slope = torch.sign(outputs) if ctx.is_relu else 1 - outputs * outputs
        last, earlier = _previous_gradients(of_outputs, backwards=ctx.backwards)
        (of_first,), (before,) = repeat(
            rnn_step_back, (of_hidden + last,), (slope, earlier), (recurrent.T,), backwards=not ctx.backwards
        )
        previous = _previous(outputs, first, backwards=ctx.backwards)
        of_weight, of_recurrent, of_bias = _weight_gradients(before, values, previous)
        of_biases = [None if ctx.bias is None else of_bias] * 2
        return _product(weight.T, before), of_first, of_weight, of_recurrent, *of_biases, None, None


def _product(weight: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
    """f32[G, F] times f32[T, F, B], for every entry of the sequence. The bias is one more column: added, it would be
    spread over rows that are far apart.
    """
    if bias is not None:
        weight, values = (
            torch.cat([weight, bias.unsqueeze(1)], 1),
            torch.cat([values, torch.ones_like(values[:, :1])], 1),
        )
    return torch.bmm(weight.expand(values.shape[0], *weight.shape), values)


def _weight_gradients(of_gates: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Gradients of the weights f32[G, F] that made f32[T, G, B] of each of `inputs` f32[T, F, B], and of the bias."""
    sizes = [values.shape[1] for values in inputs]
    ones = torch.ones_like(inputs[0][:, :1])
    *weights, bias = torch.split_with_sizes(_summed_product(of_gates, torch.cat([*inputs, ones], 1)), [*sizes, 1], 1)
    return *weights, bias.squeeze(1)


def _summed_product(left: Tensor, right: Tensor) -> Tensor:
    """The sum of f32[T, G, B] times f32[T, F, B] turned, over steps and rows: f32[G, F]."""
    return left.transpose(1, 2).flatten(0, 1).T @ right.transpose(1, 2).flatten(0, 1)


def _previous(values: Tensor, first: Tensor, *, backwards: bool) -> Tensor:
    """What each step of f32[T, F, B] began with: `first`, then what the step before it gave."""
    order = [values[1:], first.unsqueeze(0)] if backwards else [first.unsqueeze(0), values[:-1]]
    return torch.cat(order)


def _previous_gradients(of_outputs: Tensor, *, backwards: bool) -> tuple[Tensor, Tensor]:
    """The gradient of the last output, and for each step that of the one before it: none before the first."""
    last = of_outputs[0 if backwards else -1]
    return last, _previous(of_outputs, torch.zeros_like(last), backwards=backwards)


def _candidate_last(gates: Tensor) -> Tensor:
    """Input, forget, candidate, output to input, forget, output, candidate: one sigmoid then serves all gates."""
    entry_forget, candidate, output = _parts(gates)
    return torch.cat([entry_forget, output, candidate])


def _candidate_third(gates: Tensor) -> Tensor:
    """The other way."""
    entry_forget, output, candidate = _parts(gates)
    return torch.cat([entry_forget, candidate, output])


def _parts(gates: Tensor) -> tuple[Tensor, ...]:
    size = gates.shape[0] // 4
    return torch.split_with_sizes(gates, [2 * size, size, size])
