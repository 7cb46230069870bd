"""Versions as devices fetch them: packed as the difference from the version that the device has, made on request."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from bundle_runtime.bundle import Bundle
from fleet_protocol.codec import encode_difference, read_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.topics import PackedWeights

MAX_REMEMBERED = 2
"""Versions packed whole that are kept in memory: each difference is compared with its version's."""


class PackedVersions:
    """Packs any version of the tasks of `bundles`; `find_weights` looks up the safetensors of a task's version."""

    def __init__(self, bundles: Sequence[Bundle], find_weights: Callable[[str, int], bytes | None]) -> None:
        self._descriptions = {bundle.description.task: bundle.description for bundle in bundles}
        self._grids = {bundle.description.task: bundle.grid() for bundle in bundles}
        self._find_weights = find_weights
        self._whole: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    def find(self, wanted: PackedWeights) -> bytes | None:
        """The difference, or the whole version where that is smaller or `base` is unknown; None for no such version.

        So a base that was never there costs a look, and no packing.
        """
        base = None if wanted.base is None else self._weights(wanted.task, wanted.base)
        whole = self._find_whole(wanted.task, wanted.version)
        target = None if base is None or whole is None else self._weights(wanted.task, wanted.version)
        if base is None or whole is None or target is None:
            return whole
        return min(self._pack(wanted.task, base, target), whole, key=len)

    def _find_whole(self, task: str, version: int) -> bytes | None:
        name = task, version
        if name not in self._whole:
            if (target := self._weights(task, version)) is None:
                return None
            self._whole[name] = self._pack(task, None, target)
            if len(self._whole) > MAX_REMEMBERED:
                self._whole.popitem(last=False)
        self._whole.move_to_end(name)
        return self._whole[name]

    def _pack(self, task: str, base: FloatVector | None, target: FloatVector) -> bytes:
        return encode_difference(base, target, self._descriptions[task].version.shapes, self._grids[task])

    def _weights(self, task: str, number: int) -> FloatVector | None:
        found = self._find_weights(task, number)
        return None if found is None else read_weights(found, self._descriptions[task].version.parameters)
