"""How a simulated device follows versions: it receives manifests and fetches missing files, as the shipped core
decides."""

from edge_agent.core.round_participation import why_not_asked
from edge_agent.core.version_choice import (
    KnownVersion,
    ManifestNews,
    choose_weights,
    is_same_line,
    judge_manifest,
    needs_last_weights,
)
from fleet_protocol.codec import read_model
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.kinds import BLOB_REQUEST, WEIGHTS_REQUEST, BlobRequest, WeightsRequest, encode_payload
from fleet_protocol.topics import PackedWeights
from workbench.simulation.device_memory import DeviceMemory
from workbench.simulation.messages import DeviceEnd
from workbench.simulation.world import PublishedVersion, SimulatedWorld

ANY_BLOB = encode_payload(BlobRequest(bytes(32), []))
"""A request for all chunks of a blob, as long as any other."""


class SimulatedVersionFollower:
    """One device's view of its task's versions."""

    __slots__ = ("_end", "_memory", "_world", "selection_threshold")

    def __init__(
        self, world: SimulatedWorld, end: DeviceEnd, memory: DeviceMemory, selection_threshold: int | None = None
    ) -> None:
        self._world = world
        self._end = end
        self._memory = memory
        self.selection_threshold = selection_threshold
        """That of the last manifest, where it is remembered."""

    def restart(self) -> None:
        """Forget what a device does not store."""
        self.selection_threshold = None

    def receive_manifest(self, version: PublishedVersion) -> KnownVersion:
        """Take the newest manifest; those published before it are skipped."""
        memory = self._memory
        manifest = version.manifest
        news = judge_manifest(memory.known, self.selection_threshold, manifest)
        if memory.known is None or news is ManifestNews.NEW_VERSION:
            if memory.known is not None and memory.known.bundle != manifest.bundle:
                memory.begin_bundle()
            memory.known = version.known
        self.selection_threshold = manifest.selection_threshold
        return memory.known

    def why_not_asked(self, version: PublishedVersion) -> str | None:
        """See `core.round_participation`."""
        held = self._memory.held
        threshold = version.manifest.selection_threshold
        trained_on = held.version if held else None
        return why_not_asked(
            version.task,
            version.number,
            self._end.device,
            threshold,
            trained_on,
            selection=version.manifest.selection,
            figures=self._memory.figures,
        )

    def last_weights(self, known: KnownVersion) -> FloatVector | None:
        """Those of the version that the device trained from last, where its task's rule needs them."""
        task, held = self._world.task, self._memory.held
        if not needs_last_weights(task) or held is None or not is_same_line(held, known) or held == known:
            return None
        file = self._world.coordinator.published(task.task, held.version)
        return None if file is None else read_model(file, task, self._memory.cluster)

    def fetch(self, known: KnownVersion) -> int:
        """Request the missing bundle files and weights; returns the bytes sent to the device."""
        task = self._world.task
        memory = self._memory
        weights = choose_weights(task, known, memory.held, memory.is_here, refused=())
        is_first = memory.fetched is None
        is_rescaled = memory.fetched is not None and memory.fetched.bundle != known.bundle
        blobs = self._world.downlink.bundle_files if is_first else int(is_rescaled)
        requested = 0
        if isinstance(weights, PackedWeights):
            wanted = encode_payload(WeightsRequest(weights.version, weights.base, []))
            requested += self._end.request_bytes(WEIGHTS_REQUEST, wanted, task.task)
        elif weights is not None:
            blobs += 1
        if blobs:
            requested += blobs * self._end.request_bytes(BLOB_REQUEST, ANY_BLOB)
        self._world.ledger.up["request"] += requested
        return self._world.fetch(weights, is_first=is_first, is_rescaled=is_rescaled)
