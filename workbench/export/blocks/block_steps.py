"""The functions that become a block's graphs: its forward pass, and its backward pass with the update of its weights.

Each takes positional tensors, in the order of the names that it was made for. Weights f32[P] are a block's trainable
parameters f32[T] and behind them its buffers; its optimiser's state is of the T alone.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.func import functional_call, vjp

from workbench.export.blocks.division import Division
from workbench.export.blocks.points import caught_alone, given, joined_runs
from workbench.export.graphs.flat_weights import join, split
from workbench.export.graphs.gradients import STATE, GraphFunction, Tensors, losses_and_outputs, pulled
from workbench.export.graphs.optimisers import OPTIMISERS, Rates
from workbench.export.layers.exportable_layers import exportable_layers
from workbench.export.layers.layer_context import LayerContext
from workbench.export.recipe.heads import Batch

ACTIVATIONS, GRADIENT = "activations", "gradient"
"""What a block takes from the one in front of it, and what it takes from the one behind it."""
Pass = Callable[[Tensors, Tensor | None, LayerContext], Tensor]
"""A block's tensors by name, activations (none of the first block) and context, to what the block gives."""


class BlockSteps:
    """The functions of one block of a division, on the values that `names` says."""

    def __init__(self, division: Division, block: int, names: Sequence[str]) -> None:
        self._division = division
        self._recipe = division.recipe
        self._block = block
        self._names = names
        self._parameters = division.parameters_of(block)
        self._trained = [parameter for parameter in self._parameters if parameter.trainable]
        self._part = division.part_of(block)

    def forward(self) -> GraphFunction:
        """To `forward_outputs`; of the last block, to the losses f32[N] of all parts."""

        def forward(*tensors: Tensor) -> tuple[Tensor, ...]:
            named = self._named(tensors)
            held, context = self._tensors(named), _context(named)
            run = self._losses(named, "") if self._block == self._division.last else self._outputs(named)
            outputs = run(held, named.get(ACTIVATIONS), context)
            return (outputs, join(self._buffers(held, context.updated))) if self._moves_alone else (outputs,)

        return forward

    def forward_outputs(self) -> list[str]:
        """`outputs` f32[N, *shape], what the block gives; and `moved_buffers` f32[B], where it `_moves_alone`."""
        return ["outputs", *(["moved_buffers"] if self._moves_alone else [])]

    @property
    def _moves_alone(self) -> bool:
        """Whether it has buffers, and in the pass for another part neither it nor anything in front of it trains."""
        parts = {self._division.part_of(block) for block in range(self._block + 1)}
        has_buffers = len(self._parameters) > len(self._trained)
        return has_buffers and len(parts) == 1 < len(self._recipe.task.parts) and self._block < self._division.last

    def backward(self, *, update: bool) -> GraphFunction:
        """The forward pass again; then from the `gradient` of what it gives to `backward_outputs`."""

        def backward(*tensors: Tensor) -> tuple[Tensor, ...]:
            named = self._named(tensors)
            return self._back(named, self._outputs(named), named[GRADIENT], update=update)[0]

        return backward

    def last(self, part: str) -> GraphFunction:
        """The loss, of a part of the task if one is named, and from it to `backward_outputs` and the losses f32[N]."""

        def last(*tensors: Tensor) -> tuple[Tensor, ...]:
            named = self._named(tensors)
            run = self._losses(named, part)
            results, row_losses = self._back(named, run, named["row_weights"], update=self.updates(part))
            return *results, row_losses

        return last

    def updates(self, part: str) -> bool:
        """Whether a pass for this part, or for the whole task, trains the block."""
        return part in ("", self._part)

    def backward_outputs(self, *, update: bool) -> list[str]:
        """`trained_weights` f32[P], where some can change; the optimiser's `trained.state.*`, where it `update`s;
        `input_gradient` f32[N, *shape of the block before], but for the first block.
        """
        trains = update and bool(self._trained)
        names = ["trained_weights"] * (trains or len(self._parameters) > len(self._trained))
        names += [f"trained.{name}" for name in self._names if trains and name.startswith(STATE)]
        return names + ["input_gradient"] * bool(self._block)

    def _back(self, named: Tensors, run: Pass, cotangent: Tensor, *, update: bool) -> tuple[tuple[Tensor, ...], Tensor]:
        """`backward_outputs` for a cotangent of what `run` gives, and that."""
        tensors = self._tensors(named)
        trained = [parameter.name for parameter in self._trained] if update else []
        activations = [named[ACTIVATIONS]] if self._block else []
        context = _context(named)

        def outputs_of(*varied: Tensor) -> tuple[Tensor, Tensors]:
            given = tensors | dict(zip(trained, varied, strict=False))
            return run(given, varied[-1] if activations else None, context), context.updated

        varied = [*(tensors[name] for name in trained), *activations]
        outputs, pull_back, updated = vjp(outputs_of, *varied, has_aux=True)  # type: ignore[misc] # torch's is too wide
        gradients = pull_back(cotangent)
        state = [named[name] for name in self._names if name.startswith(STATE)] if trained else []
        weights = join([tensors[each.name] for each in self._trained]) if self._trained else None
        if trained and weights is not None:
            gradient = pulled(join(gradients[: len(trained)]), named, weights, self._anchor(named), clips=False)
            plan = self._recipe.task.training
            weights, *state = OPTIMISERS[plan.optimiser].update(weights, gradient, state, self._rates(named))
        buffers = self._buffers(tensors, updated)
        kept = [weights] if weights is not None and (trained or buffers) else []
        changed = [join([*kept, *buffers])] if kept or buffers else []
        return (*changed, *state, *gradients[len(trained) :]), outputs

    def _buffers(self, tensors: Tensors, updated: Tensors) -> list[Tensor]:
        """The block's, as a pass that `updated` some leaves them."""
        return [updated.get(each.name, tensors[each.name]) for each in self._parameters if not each.trainable]

    def _rates(self, named: Tensors) -> Rates:
        plan, parts = self._recipe.task.training, self._recipe.task.parts
        rate = named["learning_rate"] * parts[self._part].rate if self._part else named["learning_rate"]
        return Rates(rate, named.get("weight_decay"), plan.momentum)

    def _anchor(self, named: Tensors) -> Tensor:
        """f32[T] of the weights that FedProx's term pulls towards; the block's own where there is none."""
        weights = named.get("anchor", named["weights"])
        return weights[: sum(parameter.size for parameter in self._trained)]

    def _outputs(self, named: Tensors) -> Pass:
        """To what the block's last point gives, f32[N, *shape]."""
        module, point = self._recipe.module, self._division.points[self._block]
        runs = self._division.runs[self._block]

        def outputs(tensors: Tensors, activations: Tensor | None, context: LayerContext) -> Tensor:
            with (
                exportable_layers(module, context),
                self._entered(activations),
                caught_alone(module, point, runs) as found,
            ):
                functional_call(module, tensors, (named["inputs"],))
            return joined_runs(found)

        return outputs

    def _losses(self, named: Tensors, part: str) -> Pass:
        """To the losses f32[N] of a part, or of all."""
        real = (named["row_weights"] > 0).to(torch.float32)
        batch = Batch(named["inputs"], named.get("labels"), real, named)

        def losses(tensors: Tensors, activations: Tensor | None, context: LayerContext) -> Tensor:
            with self._entered(activations):
                return losses_and_outputs(self._recipe, tensors, batch, context, part)[0]

        return losses

    @contextmanager
    def _entered(self, activations: Tensor | None) -> Iterator[None]:
        """What stands in front of the block is replaced by `activations`."""
        if activations is None:
            yield
            return
        before = self._block - 1
        division = self._division
        with given(self._recipe.module, division.points[before], activations, division.runs[before]):
            yield

    def _named(self, tensors: Sequence[Tensor]) -> Tensors:
        return dict(zip(self._names, tensors, strict=True))

    def _tensors(self, named: Tensors) -> Tensors:
        return split(named["weights"], self._parameters) if self._parameters else {}


def _context(named: Tensors) -> LayerContext:
    return LayerContext(named["row_weights"], named["seed"])
