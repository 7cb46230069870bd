"""Everything that a device may fetch by its hash: the files of the served bundles and every version's weights."""

from collections.abc import Callable

from bundle_runtime.bundle import Bundle
from fleet_protocol.bundle_files import blob_hash


class BlobStore:
    """Finds blobs by hash. `find_weights` looks up what is not a bundle's file, among the versions in the journal."""

    def __init__(self, bundles: list[Bundle], find_weights: Callable[[str], bytes | None]) -> None:
        self._files = {blob_hash(data): data for bundle in bundles for data in bundle.files.values()}
        self._find_weights = find_weights

    def file(self, name: str) -> bytes | None:
        """The bundle's file with this SHA-256 (hex), or None. It is in memory."""
        return self._files.get(name)

    def blob(self, name: str) -> bytes | None:
        """The file or the weights with this SHA-256, or None."""
        return self.file(name) or self._find_weights(name)
