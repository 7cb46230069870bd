"""Versions as devices fetch them: packed as the difference from the version that the device has, made on request."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from bundle_runtime.bundle import Bundle
from fleet_protocol.codec import encode_difference, read_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.topics import PackedWeights

MAX_REMEMBERED = 8
"""Packed versions kept in memory: the devices of a fleet hold only a few different versions at a time."""


class PackedVersions:
    """Packs any version of the tasks of `bundles`; `find_weights` looks up the safetensors of a task's version."""

    def __init__(self, bundles: Sequence[Bundle], find_weights: Callable[[str, int], bytes | None]) -> None:
        self._descriptions = {bundle.description.task: bundle.description for bundle in bundles}
        self._grids = {bundle.description.task: bundle.grid() for bundle in bundles}
        self._find_weights = find_weights
        self._remembered: OrderedDict[PackedWeights, bytes] = OrderedDict()

    def find(self, wanted: PackedWeights) -> bytes | None:
        """The difference, or the whole version where that is smaller or `base` is unknown; None for no such version."""
        if wanted not in self._remembered:
            if (packed := self._pack(wanted)) is None:
                return None
            self._remembered[wanted] = packed
            if len(self._remembered) > MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        self._remembered.move_to_end(wanted)
        return self._remembered[wanted]

    def _pack(self, wanted: PackedWeights) -> bytes | None:
        target = self._weights(wanted.task, wanted.version)
        if target is None:
            return None
        shapes = self._descriptions[wanted.task].shapes
        grid = self._grids[wanted.task]
        base = None if wanted.base is None else self._weights(wanted.task, wanted.base)
        if base is None:
            return encode_difference(None, target, shapes, grid)
        whole = self.find(PackedWeights(wanted.task, wanted.version, None))
        packed = encode_difference(base, target, shapes, grid)
        return packed if whole is None else min(packed, whole, key=len)

    def _weights(self, task: str, number: int) -> FloatVector | None:
        found = self._find_weights(task, number)
        return None if found is None else read_weights(found, self._descriptions[task].parameters)
