"""The part of a task's flat weight vector that an update holds: some blocks of its `split`, and nothing that is a
device's own.
"""

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fleet_protocol.codec.sparse import FloatVector, IndexVector, SparseUpdate
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.parameter import Parameter
from fleet_protocol.task_description import TaskDescription


@dataclass(frozen=True, slots=True)
class HeldBlocks:
    """The tensors of the blocks that a round trained, in the order of the flat vector; all of them without a `split`,
    but for those that never leave a device.

    `shapes` are those of the trained ones, `trained` the places of these among all trained tensors, `statistics` those
    of the running statistics among all statistics.
    """

    shapes: tuple[tuple[int, ...], ...]
    trained: "Places"
    statistics: "Places"

    @classmethod
    def of(cls, task: TaskDescription, held: Sequence[int]) -> "HeldBlocks":
        """Those of a task with more than 0 samples in `held`; all where it is empty.

        Raises:
            ProtocolError: `MALFORMED`: the task has another number of blocks, or none; `OUT_OF_BOUNDS`: those held
                have no weights.
        """
        if not held and not task.own_parameters:
            return _every(task.trained_shapes, task.statistics_shapes)
        blocks = len(task.split.blocks) if task.split else 0
        if held and len(held) != blocks:
            raise ProtocolError(
                Reason.MALFORMED, f"samples of {len(held)} blocks; {task.task} is divided into {blocks}"
            )
        first_statistic = len(task.trained_shapes)
        trained, statistics = task.parameters[:first_statistic], task.parameters[first_statistic:]
        own = task.own_parameters
        shapes = tuple(tuple(parameter.shape) for parameter in trained if _is_held(parameter, held, own))
        if not shapes:
            raise ProtocolError(Reason.OUT_OF_BOUNDS, "no block that it holds has weights: there is nothing to average")
        return cls(
            shapes,
            Places.of(trained, held, own),
            Places.of(statistics, held, own),
        )


@dataclass(frozen=True, slots=True)
class Places:
    """Where the entries of some tensors lie: `starts` in the vector of these tensors alone, `shifts` from there to
    their places in the vector of all. Both int64, one for each tensor; `size` and `whole` are the vectors' lengths.
    """

    starts: IndexVector
    shifts: IndexVector
    size: int
    whole: int

    @classmethod
    def of(cls, parameters: Sequence[Parameter], held: Sequence[int], own: Collection[str] = ()) -> "Places":
        """Those of the tensors whose block is held, and whose name is not one of a device's `own`."""
        sizes = [parameter.size for parameter in parameters]
        starts_of_all = list(itertools.accumulate(sizes, initial=0))
        chosen = [number for number, parameter in enumerate(parameters) if _is_held(parameter, held, own)]
        starts = list(itertools.accumulate((sizes[number] for number in chosen), initial=0))
        shifts = [starts_of_all[number] - start for number, start in zip(chosen, starts, strict=False)]
        return cls(np.array(starts[:-1], np.int64), np.array(shifts, np.int64), starts[-1], starts_of_all[-1])

    @property
    def are_all(self) -> bool:
        """Whether no tensor is left out."""
        return self.size == self.whole

    def in_whole(self, places: IndexVector) -> IndexVector:
        """The places in the vector of all tensors, ascending like those in the vector of these."""
        if self.are_all or not places.size:
            return places
        return places + self.shifts[np.searchsorted(self.starts, places, "right") - 1]

    def every(self) -> IndexVector:
        """The places in the vector of all tensors of every entry."""
        return self.in_whole(np.arange(self.size))

    def part(self, vector: FloatVector) -> FloatVector:
        """These tensors of the vector of all."""
        if self.are_all:
            return vector
        ends = np.append(self.starts[1:], self.size)
        tensors = zip(self.starts + self.shifts, ends + self.shifts, strict=True)
        return np.concatenate([vector[:0], *(vector[start:end] for start, end in tensors)])

    def spread(self, part: FloatVector) -> FloatVector:
        """The vector of all tensors, with zeros where others are: the other way round."""
        if self.are_all:
            return part
        vector = np.zeros(self.whole, np.float32)
        vector[self.every()] = part
        return vector

    def spread_sparse(self, update: SparseUpdate) -> SparseUpdate:
        """The same of some entries."""
        return update if self.are_all else SparseUpdate(self.in_whole(update.indices), update.values)


@lru_cache(64)
def _every(trained: tuple[tuple[int, ...], ...], statistics: tuple[tuple[int, ...], ...]) -> HeldBlocks:
    """All of a task's tensors of these shapes. It is asked for with every update."""
    return HeldBlocks(trained, _whole(trained), _whole(statistics))


def _whole(shapes: tuple[tuple[int, ...], ...]) -> Places:
    """The places of tensors of which none is left out."""
    ends = list(itertools.accumulate(map(math.prod, shapes), initial=0))
    return Places(np.array(ends[:-1], np.int64), np.zeros(len(shapes), np.int64), ends[-1], ends[-1])


def _is_held(parameter: Parameter, held: Sequence[int], own: Collection[str]) -> bool:
    return parameter.name not in own and (not held or held[parameter.block] > 0)
