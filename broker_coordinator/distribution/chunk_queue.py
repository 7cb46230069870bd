"""Which chunks of files to publish, and when: concurrent requests share one publication. Pure."""

from collections.abc import Iterable

from fleet_protocol.topics import PackedWeights

SHARING_WINDOW_SECONDS = 0.02
"""A chunk waits this long after the first request for it. Devices subscribe before they request, so one publication
serves every request in that time; after a new version a whole fleet requests within a few such windows."""

MAX_WAITING_CHUNKS = 8_192
"""At most half a gigabyte of publications. Who asks for more asks again."""

Wanted = str | PackedWeights
"""A file by its SHA-256 in hex, or packed weights."""

ChunkName = tuple[Wanted, int]
"""A file, and the number of one of its chunks."""


class ChunkQueue:
    """Requested chunks in the order in which they fall due. Times are seconds on any one clock."""

    def __init__(self) -> None:
        self._due: dict[ChunkName, float] = {}

    def request(self, wanted: Wanted, chunks: Iterable[int], now: float) -> int:
        """Queue chunks; one that is queued already keeps its place. Returns how many found no place."""
        left_out = 0
        for number in chunks:
            if len(self._due) < MAX_WAITING_CHUNKS or (wanted, number) in self._due:
                self._due.setdefault((wanted, number), now + SHARING_WINDOW_SECONDS)
            else:
                left_out += 1
        return left_out

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
