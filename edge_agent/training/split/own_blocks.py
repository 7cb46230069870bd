"""The blocks that a device trains while a helper trains the others; and how an abandoned step is taken back."""

from collections.abc import Iterable
from dataclasses import dataclass

from bundle_runtime.blocks import Backward, BlockRunner, Last, State
from bundle_runtime.trained_block import TrainedBlock
from fleet_protocol.codec.sparse import FloatVector


@dataclass(frozen=True, slots=True)
class Change:
    """What one step has made of one block. The arrays are those that other steps hold too: a change costs no copy."""

    block: int
    before: FloatVector
    after: FloatVector
    state_before: State


class OwnBlocks:
    """The device's blocks by their numbers, on weights f32[P] of which only theirs need be there."""

    def __init__(self, runner: BlockRunner, blocks: Iterable[int], weights: FloatVector) -> None:
        self.runner = runner
        self._blocks = {block: TrainedBlock.of(runner, block, weights) for block in blocks}

    def __getitem__(self, block: int) -> TrainedBlock:
        return self._blocks[block]

    def accept(self, block: int, trained: Backward | Last, *, update: bool = True) -> Change:
        """Take what a pass made of a block at once, so that the steps behind it see it."""
        held = self._blocks[block]
        before, state = held.weights, held.state
        held.accept(trained, int(update))
        return Change(block, before, held.weights, state)

    def take_back(self, changes: Iterable[Change]) -> None:
        """Undo the changes of a step that is abandoned: as if it had never been, where no other step has changed the
        block since; else its change is subtracted from the weights, and the optimiser's memory of it fades.
        """
        for change in changes:
            held = self._blocks[change.block]
            if held.weights is change.after:
                held.weights, held.state = change.before, change.state_before
            else:
                held.weights = held.weights - (change.after - change.before)

    def into(self, weights: FloatVector) -> FloatVector:
        """A copy of all weights f32[P] with these blocks as they are now."""
        trained = weights.copy()
        for block, held in self._blocks.items():
            self.runner.into(trained, block, held.weights)
        return trained
