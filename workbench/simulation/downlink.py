"""What devices fetch, in bytes: the bundle's files and packed versions, each chunk as the coordinator would sign it."""

from collections.abc import Callable

from broker_coordinator.distribution.chunk_queue import Wanted
from broker_coordinator.distribution.packed_versions import PackedVersions
from broker_coordinator.distribution.signed_messages import MessageSigner
from bundle_runtime.bundle import Bundle
from edge_agent.worker.contract import files_for
from fleet_protocol.bundle_files import DESCRIPTION_FILE, blob_hash
from fleet_protocol.chunks import chunk_count
from fleet_protocol.topics import PackedWeights


class Downlink:
    """Counts what the shipped coordinator would publish for one device; `find_weights` gives a version's file."""

    def __init__(self, bundle: Bundle, signer: MessageSigner, find_weights: Callable[[str, int], bytes | None]) -> None:
        self._task = bundle.description.task
        self._plan = bundle.description.downlink
        self._signer = signer
        self._find_weights = find_weights
        self._packed = PackedVersions([bundle], find_weights)
        self._sizes: dict[PackedWeights, int] = {}
        self._newest = 0
        names = [DESCRIPTION_FILE, *files_for("onnx-step", bundle.description)]
        self.bundle_files = len(names)
        sizes = {name: self._signed(blob_hash(bundle.files[name]), bundle.files[name]) for name in names}
        self.bundle_bytes = sum(sizes.values())
        self.description_bytes = sizes[DESCRIPTION_FILE]

    def version_bytes(self, version: int, held: int | None) -> int:
        """Bytes that bring a device from version `held`, or from nothing, to the newest one, which is `version`."""
        if version != self._newest:
            self._sizes.clear()
            self._newest = version
        is_base = held is not None and self._plan.packs(version) and self._find_weights(self._task, held) is not None
        wanted = PackedWeights(self._task, version, held if is_base else None)
        if wanted not in self._sizes:
            self._sizes[wanted] = self._count(wanted)
        return self._sizes[wanted]

    def _count(self, wanted: PackedWeights) -> int:
        packs = self._plan.packs(wanted.version)
        found = self._packed.find(wanted) if packs else self._find_weights(wanted.task, wanted.version)
        assert found is not None  # noqa: S101 - the newest version is never forgotten
        return self._signed(wanted if packs else blob_hash(found), found)

    def _signed(self, wanted: Wanted, content: bytes) -> int:
        return sum(len(self._signer.chunk(wanted, content, number).data) for number in range(chunk_count(len(content))))
