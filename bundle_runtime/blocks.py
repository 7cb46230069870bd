"""Some blocks of a task's model, run one at a time: forward, backward with update, and the last with its loss.

A device and its helper each load the graphs of their own blocks, and chain them (docs/split-learning.md). A block's
weights f32[P] are its part of the flat weight vector: its trainable parameters, then its buffers.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.graph import Graph, GraphError, GraphSource
from bundle_runtime.log_priors import log_priors
from bundle_runtime.scale_feeds import scale_feeds
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.split_plan import SplitPlan, backward_file, forward_file, last_file, passing_file
from fleet_protocol.task_description import TaskDescription, split_files

Floats: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = NDArray[np.int64] | NDArray[np.float32]
State: TypeAlias = dict[str, Floats]
"""What a block's optimiser carries from step to step, by the names of its graph's inputs."""

STATE = "state."
TRAINED = "trained."
TRAINED_WEIGHTS = "trained_weights"
MOVED_BUFFERS = "moved_buffers"


class Rates(Protocol):
    """What an optimiser is told besides the gradient."""

    @property
    def learning_rate(self) -> float:
        """Step size of the optimiser."""

    @property
    def weight_decay(self) -> float:
        """L2 penalty."""

    @property
    def proximal(self) -> float:
        """FedProx's coefficient."""


@dataclass(frozen=True, slots=True)
class Backward:
    """`weights` f32[P] and `state` after a backward pass; `input_gradient` f32[N, *shape], None of the first block."""

    weights: FloatVector
    state: State
    input_gradient: Floats | None


@dataclass(frozen=True, slots=True)
class Last:
    """The same of the last block, and its `row_losses` f32[N]."""

    weights: FloatVector
    state: State
    input_gradient: Floats
    row_losses: FloatVector


class BlockRunner:
    """The graphs of some blocks of one bundle."""

    def __init__(
        self, task: TaskDescription, files: Mapping[str, GraphSource], blocks: Iterable[int], threads: int = 1
    ) -> None:
        """Load the graphs of `blocks`, and no others; `files` has them by their names in the bundle.

        Raises:
            ConfigurationError: the task has no `split`, or no such block.
            GraphError: a graph can't be loaded.
        """
        self._task = task
        self._plan = _plan(task)
        self._scale = scale_feeds(task)
        self._places = {block: _places(task, block) for block in blocks}
        self._trained = {block: _trained(task, block) for block in self._places}
        self._last = len(self._plan.blocks) - 1
        self._graphs = {
            file: Graph(file, files[file], threads) for file in sorted(split_files(task, self._places.keys()))
        }

    def weights_of(self, block: int, flat: FloatVector) -> FloatVector:
        """The block's weights f32[P], out of the flat weight vector of the task."""
        return np.concatenate([flat[place] for place in self._places[block]] or [flat[:0]])

    def into(self, flat: FloatVector, block: int, weights: FloatVector) -> None:
        """Write the block's weights f32[P] into the flat weight vector of the task, in place."""
        start = 0
        for place in self._places[block]:
            end = start + place.stop - place.start
            flat[place] = weights[start:end]
            start = end

    def new_state(self, block: int) -> State:
        """The state of the block's optimiser in front of the first step."""
        shapes = {
            name: [size for size in shape if isinstance(size, int)]  # no axis of a state is free
            for file in sorted(split_files(self._task, [block]))
            for name, shape in self._graphs[file].input_shapes.items()
            if name.startswith(STATE)
        }
        return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}

    def draws(self, block: int) -> bool:
        """Whether a block but the last draws random numbers: then its rows depend on the step's seed."""
        return "seed" in self._graphs[forward_file(block)].input_shapes

    def log_priors(self, labels: Labels) -> dict[str, Floats]:
        """What the loss of each head that balances classes adds to its scores, from all labels of a round as training
        takes them: i64[N], or f32[N, values]. For `last`; empty where no loss does.
        """
        asked = {name for part in self._plan.turns for name in self._graphs[last_file(self._last, part)].input_shapes}
        return log_priors(self._task.each_label, labels, asked)

    def forward(
        self,
        block: int,
        weights: FloatVector,
        inputs: Floats,
        *,
        seed: int,
        row_weights: FloatVector | None = None,
        raw: Floats | None = None,
    ) -> Floats:
        """What a block but the last gives, f32[N, *output_shape], in training mode.

        `inputs` are what the block in front of it gives, of the first block samples as training takes them. `seed` is
        what the step draws from. `row_weights` f32[N] add up to 1 over the rows that count; left out, all count alike.
        A block behind the first that reads samples takes them as `raw`.

        Raises:
            GraphError: the graph does not take values of these shapes, or gives others than the task says.
            MemoryError: there is no room.
        """
        feeds = self._feeds(block, weights, inputs, seed=seed, row_weights=row_weights, raw=raw)
        given = {"outputs": (len(inputs), *self._plan.blocks[block].output_shape)}
        return self._run(forward_file(block), feeds, given)["outputs"]

    def backward(
        self,
        block: int,
        weights: FloatVector,
        state: State,
        inputs: Floats,
        gradient: Floats,
        *,
        seed: int,
        rates: Rates,
        row_weights: FloatVector | None = None,
        raw: Floats | None = None,
        anchor: FloatVector | None = None,
        update: bool = True,
    ) -> Backward:
        """Take `gradient` f32[N, *output_shape] through a block but the last, and update it.

        What else it is given is what its forward pass was given, which is computed again. `anchor` f32[P] are the
        block's weights that FedProx's term pulls towards; left out, `weights`. Without `update` nothing is trained, as
        in the pass for another part of the task; buffers move all the same. Where nothing in front trains in that pass
        either, nobody learns from the gradient by `inputs`, and it is 0.

        Raises:
            GraphError, MemoryError: as `forward`.
        """
        feeds = self._feeds(block, weights, inputs, seed=seed, row_weights=row_weights, raw=raw)
        if not update and self._moves_alone(block):
            return Backward(self._moved(block, weights, feeds), state, np.zeros_like(inputs) if block else None)
        feeds |= {**self._rates(rates, weights, anchor), **state, "gradient": gradient}
        given = {"input_gradient": inputs.shape} if block else {}
        file = passing_file(block) if not update and passing_file(block) in self._graphs else backward_file(block)
        outputs = self._run(file, feeds, given | self._weights_of_block(block))
        new, passed_on = outputs.get(TRAINED_WEIGHTS, weights), outputs.get("input_gradient")
        if update:
            return Backward(new, _new_state(state, outputs), passed_on)
        trained = self._trained[block]
        return Backward(np.concatenate([weights[:trained], new[trained:]]), state, passed_on)

    def _moves_alone(self, block: int) -> bool:
        """Whether a pass that does not train the block trains none in front of it, and a forward pass is all that moves
        its buffers. Bundles of older exports need the backward pass.
        """
        *before, own = self._plan.blocks[: block + 1]
        moves = MOVED_BUFFERS in self._graphs[forward_file(block)].output_names or not self._buffers(block)
        return bool(own.part) and moves and all(each.part == own.part for each in before)

    def _moved(self, block: int, weights: FloatVector, feeds: Mapping[str, NDArray[np.generic]]) -> FloatVector:
        if not (buffers := self._buffers(block)):
            return weights
        moved = self._run(forward_file(block), feeds, {MOVED_BUFFERS: (buffers,)})[MOVED_BUFFERS]
        return np.concatenate([weights[: self._trained[block]], moved])

    def _buffers(self, block: int) -> int:
        """How many values of the block do not train."""
        (size,) = self._weights_of_block(block)[TRAINED_WEIGHTS]
        return size - self._trained[block]

    def last(
        self,
        weights: FloatVector,
        state: State,
        inputs: Floats,
        labels: Labels,
        *,
        seed: int,
        rates: Rates,
        part: str = "",
        row_weights: FloatVector | None = None,
        raw: Floats | None = None,
        log_priors: Mapping[str, Floats] | None = None,
        anchor: FloatVector | None = None,
    ) -> Last:
        """The last block's loss, of a `part` of the task where it has some, the gradient of that, and the update, where
        the block belongs to the part.

        `labels` are i64[N], or f32[N, values], as training takes them; `log_priors` what the method of that name gives.

        Raises:
            GraphError, MemoryError: as `forward`.
        """
        feeds = self._feeds(self._last, weights, inputs, seed=seed, row_weights=row_weights, raw=raw)
        feeds |= {**self._rates(rates, weights, anchor), **state, "labels": labels, **(log_priors or {})}
        given = {"input_gradient": inputs.shape, "row_losses": (len(inputs),)}
        outputs = self._run(last_file(self._last, part), feeds, given | self._weights_of_block(self._last))
        new = outputs.get(TRAINED_WEIGHTS, weights)
        return Last(new, _new_state(state, outputs), outputs["input_gradient"], outputs["row_losses"])

    def _run(
        self, file: str, feeds: Mapping[str, NDArray[np.generic]], expected: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Floats]:
        """The outputs of a graph. Those `expected` have these shapes, or GraphError is raised."""
        outputs = self._graphs[file].run(feeds)
        for name, shape in expected.items():
            output = outputs.get(name)
            if output is None and name == TRAINED_WEIGHTS:
                continue  # nothing of the block changes in this pass
            if output is None or output.shape != shape or output.dtype != np.float32:
                found = "nothing" if output is None else f"{output.dtype} {list(output.shape)}"
                raise GraphError(
                    f"{file} gives {found} as {name}, and the task says float32 {list(shape)}; export the bundle again"
                )
        return outputs

    def _weights_of_block(self, block: int) -> dict[str, tuple[int, ...]]:
        return {TRAINED_WEIGHTS: (sum(place.stop - place.start for place in self._places[block]),)}

    def _feeds(
        self,
        block: int,
        weights: FloatVector,
        inputs: Floats,
        *,
        seed: int,
        row_weights: FloatVector | None,
        raw: Floats | None,
    ) -> dict[str, NDArray[np.generic]]:
        rows = len(inputs)
        feeds: dict[str, NDArray[np.generic]] = {
            "weights": weights,
            "row_weights": np.full(rows, 1 / rows, np.float32) if row_weights is None else row_weights,
            "seed": np.array(seed, np.int64),
            **self._scale,
        }
        if block:
            feeds["activations"] = inputs
        samples = raw if block else inputs
        return feeds if samples is None else feeds | {"inputs": samples}

    @staticmethod
    def _rates(rates: Rates, weights: FloatVector, anchor: FloatVector | None) -> dict[str, NDArray[np.generic]]:
        return {
            "learning_rate": np.array(rates.learning_rate, np.float32),
            "weight_decay": np.array(rates.weight_decay, np.float32),
            "proximal": np.array(rates.proximal, np.float32),
            "anchor": weights if anchor is None else anchor,
        }


def _plan(task: TaskDescription) -> SplitPlan:
    if task.split is None:
        raise ConfigurationError(f"the task {task.task} has no `split`, so it has no blocks; add [split] to task.toml")
    return task.split


def _places(task: TaskDescription, block: int) -> list[slice]:
    """Where the block's values stand in the flat weight vector; neighbours joined."""
    last = len(_plan(task).blocks) - 1
    if not 0 <= block <= last:
        raise ConfigurationError(f"the task {task.task} has no block {block}; its blocks are 0 to {last}")
    ends = accumulate(parameter.size for parameter in task.parameters)
    places: list[slice] = []
    for parameter, end in zip(task.parameters, ends, strict=True):
        if parameter.block != block:
            continue
        start = end - parameter.size
        if places and places[-1].stop == start:
            start = places.pop().start
        places.append(slice(start, end))
    return places


def _trained(task: TaskDescription, block: int) -> int:
    """How many values of the block train."""
    return sum(each.size for each in task.parameters if each.block == block and each.trainable)


def _new_state(state: State, outputs: Mapping[str, Floats]) -> State:
    return {name: outputs.get(f"{TRAINED}{name}", value) for name, value in state.items()}
