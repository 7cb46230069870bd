"""Fetches blobs and packed weights: requests chunks, collects them, and requests missing ones again."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from edge_agent.core.blob_assembly import BlobAssembly
from fleet_protocol import topics
from fleet_protocol.kinds import BlobChunk, BlobRequest, WeightsRequest
from fleet_protocol.topics import PackedWeights

CHUNK_SECONDS = 5.0
"""Without a new chunk for this long, missing chunks are requested again. One that was here already is no progress."""
FETCH_ATTEMPTS = 4

Wanted = str | PackedWeights
"""A blob by its SHA-256 in hex, or packed weights."""

SendRequest = Callable[[BlobRequest | WeightsRequest, str], Awaitable[None]]
"""(request, task): the task is empty for a blob, which belongs to none."""


class NotFetchedError(Exception):
    """Chunks did not arrive; says which file."""


class Fetcher:
    """Collects the chunks of what is being fetched; other chunks are ignored."""

    def __init__(
        self, fleet: str, listening_to: Callable[[str], AbstractAsyncContextManager[None]], request: SendRequest
    ) -> None:
        self._fleet = fleet
        self._listening_to = listening_to
        self._request = request
        self._assemblies: dict[Wanted, BlobAssembly] = {}
        self._progress = asyncio.Event()

    def receive_chunk(self, wanted: Wanted, number: int, chunk: BlobChunk) -> None:
        """Take a verified chunk; one of a file that is not being fetched is ignored.

        Raises:
            ProtocolError: it contradicts its size or the chunks before it.
        """
        if wanted in self._assemblies and self._assemblies[wanted].add(number, chunk):
            self._progress.set()

    async def fetch(self, wanted: Wanted) -> bytes:
        """The whole content. The coordinator has signed it; the caller compares it with its hash.

        Raises:
            NotFetchedError: it did not come.
            LinkDownError: there is no connection.
        """
        assembly = self._assemblies[wanted] = BlobAssembly()
        try:
            async with self._listening_to(topics.chunks(self._fleet, wanted)):
                for _ in range(FETCH_ATTEMPTS):
                    await self._ask(wanted, assembly.missing)
                    if await self._assembled(assembly):
                        break
        finally:
            del self._assemblies[wanted]
        if assembly.complete is None:
            name = f"blob {wanted[:16]}" if isinstance(wanted, str) else str(wanted)
            raise NotFetchedError(f"{name} did not come in {FETCH_ATTEMPTS} attempts")
        return assembly.complete

    async def _ask(self, wanted: Wanted, missing: list[int]) -> None:
        if isinstance(wanted, str):
            await self._request(BlobRequest(bytes.fromhex(wanted), missing), "")
        else:
            await self._request(WeightsRequest(wanted.version, wanted.base, missing), wanted.task)

    async def _assembled(self, assembly: BlobAssembly) -> bool:
        while assembly.complete is None:
            self._progress.clear()
            try:
                async with asyncio.timeout(
                    CHUNK_SECONDS
                ):  # not wait_for: before Python 3.12 it may lose a cancellation
                    await self._progress.wait()
            except TimeoutError:
                return False
        return True
