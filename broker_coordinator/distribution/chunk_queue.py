"""Which chunks of blobs and packed weights to publish, and when: who asks at about the same time shares one. Pure."""

from collections.abc import Iterable

from fleet_protocol.topics import PackedWeights

SHARING_WINDOW_SECONDS = 0.02
"""A chunk waits this long after it is first asked for. Whoever asks meanwhile has subscribed before asking, so one
publication serves all; a whole fleet that hears of a new version asks within a few windows."""

Wanted = str | PackedWeights
"""A blob by its SHA-256 in hex, or packed weights."""

ChunkName = tuple[Wanted, int]
"""What is wanted, and the number of one of its chunks."""


class ChunkQueue:
    """Chunks that somebody waits for, in the order in which they fall due. Times are seconds on any one clock."""

    def __init__(self) -> None:
        self._due: dict[ChunkName, float] = {}

    def request(self, wanted: Wanted, chunks: Iterable[int], now: float) -> None:
        """Ask for chunks; one that is already waiting keeps its place."""
        for number in chunks:
            self._due.setdefault((wanted, number), now + SHARING_WINDOW_SECONDS)

    def next_due(self) -> float | None:
        """When `take` will next return something, or None."""
        return next(iter(self._due.values()), None)

    def take(self, limit: int, now: float) -> list[ChunkName]:
        """Remove and return at most `limit` chunks that are due."""
        taken: list[ChunkName] = []
        for chunk, due in self._due.items():
            if due > now or len(taken) >= limit:
                break
            taken.append(chunk)
        for chunk in taken:
            del self._due[chunk]
        return taken
