"""Which blob chunks to publish, and when: devices that ask at about the same time share one publication. Pure."""

from collections.abc import Iterable

SHARING_WINDOW_SECONDS = 0.02
"""A chunk waits this long after it is first asked for. Whoever asks meanwhile has subscribed before asking, so one
publication serves all; a whole fleet that hears of a new version asks within a few windows."""

BlobChunkName = tuple[str, int]
"""The SHA-256 of a blob in hex, and the number of one of its chunks."""


class BlobPublisher:
    """Chunks that somebody waits for, in the order in which they fall due. Times are seconds on any one clock."""

    def __init__(self) -> None:
        self._due: dict[BlobChunkName, float] = {}

    def request(self, blob: str, chunks: Iterable[int], now: float) -> None:
        """Ask for chunks of a blob; one that is already waiting keeps its place."""
        for number in chunks:
            self._due.setdefault((blob, number), now + SHARING_WINDOW_SECONDS)

    def next_due(self) -> float | None:
        """When `take` will next return something, or None."""
        return next(iter(self._due.values()), None)

    def take(self, limit: int, now: float) -> list[BlobChunkName]:
        """Remove and return at most `limit` chunks that are due."""
        taken: list[BlobChunkName] = []
        for chunk, due in self._due.items():
            if due > now or len(taken) >= limit:
                break
            taken.append(chunk)
        for chunk in taken:
            del self._due[chunk]
        return taken
