"""Everything that a device may fetch by its hash: the files of the served bundles and every version's weights."""

from collections import OrderedDict
from collections.abc import Callable

from bundle_runtime.bundle import Bundle
from fleet_protocol.bundle import blob_hash

MAX_REMEMBERED_VERSIONS = 4
"""Weights kept in memory after a request: most devices ask for the newest version, some for the one before."""


class BlobStore:
    """Finds blobs by hash. `find_weights` looks up what is not a bundle's file, among the versions in the journal."""

    def __init__(self, bundles: list[Bundle], find_weights: Callable[[str], bytes | None]) -> None:
        self._files = {blob_hash(data): data for bundle in bundles for data in bundle.files.values()}
        self._find_weights = find_weights
        self._remembered: OrderedDict[str, bytes] = OrderedDict()

    def blob(self, name: str) -> bytes | None:
        """The blob with this SHA-256 (hex), or None."""
        if name in self._files:
            return self._files[name]
        if name not in self._remembered:
            if (found := self._find_weights(name)) is None:
                return None
            self._remembered[name] = found
            if len(self._remembered) > MAX_REMEMBERED_VERSIONS:
                self._remembered.popitem(last=False)
        self._remembered.move_to_end(name)
        return self._remembered[name]
