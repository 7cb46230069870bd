"""Follows the versions of the tasks: believes signed manifests, fetches what a round needs, and no more."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from edge_agent.blob_assembly import BlobAssembly
from edge_agent.blob_cache import BlobCache
from edge_agent.device_database import DeviceDatabase, KnownVersion
from fleet_protocol import topics
from fleet_protocol.bundle import TaskDescription, parse_description
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.messages import BlobChunk, BlobRequest, Manifest

log = logging.getLogger(__name__)

CHUNK_SECONDS = 5.0
"""Without a new chunk for this long, what lacks is asked for again."""
FETCH_ATTEMPTS = 4


class VersionUnavailableError(Exception):
    """No version can be trained on right now; says why."""


@dataclass(frozen=True, slots=True)
class ReadyVersion:
    """Everything that a round needs, on this device's disk and verified."""

    number: int
    bundle: str
    description: TaskDescription
    train_graph: Path
    weights: Path


class VersionFollower:
    """The device's view of its tasks' versions."""

    def __init__(
        self,
        fleet: str,
        database: DeviceDatabase,
        cache: BlobCache,
        *,
        listening_to: Callable[[str], AbstractAsyncContextManager[None]],
        request: Callable[[BlobRequest], Awaitable[None]],
    ) -> None:
        self._fleet = fleet
        self._database = database
        self._cache = cache
        self._listening_to = listening_to
        self._request = request
        self._descriptions: dict[str, TaskDescription] = {}
        self._assemblies: dict[str, BlobAssembly] = {}
        self._progress = asyncio.Event()

    def description(self, task: str) -> TaskDescription | None:
        """The task's schema, as far as its bundle has been fetched."""
        known = self._database.known_version(task)
        if known is None:
            return None
        if known.bundle not in self._descriptions and self._cache.has(known.bundle):
            try:
                self._descriptions[known.bundle] = parse_description(self._cache.read(known.bundle))
            except (ProtocolError, ConfigurationError, OSError) as error:
                log.error("event=bundle_not_readable task=%s error=%r", task, str(error))
        return self._descriptions.get(known.bundle)

    def hear_manifest(self, task: str, manifest: Manifest) -> bool:
        """Take in a verified manifest; False where it is not news."""
        known = self._database.known_version(task)
        heard = KnownVersion(manifest.version, manifest.bundle, manifest.weights)
        if known == heard:
            return False
        if known is not None and heard.version <= known.version:
            log.warning(
                "event=old_manifest_ignored task=%s version=%d known_version=%d remedy=%r",
                task,
                heard.version,
                known.version,
                "if the coordinator was set up anew, empty this device's state_folder",
            )
            return False
        self._database.know_version(task, heard)
        return True

    def hear_chunk(self, blob: str, number: int, chunk: BlobChunk) -> None:
        """Take in a verified chunk; one that nobody waits for is ignored.

        Raises:
            ProtocolError: it contradicts its size or the chunks before it.
        """
        if blob in self._assemblies:
            self._assemblies[blob].add(number, chunk)
            self._progress.set()

    async def ready_version(self, task: str) -> ReadyVersion:
        """The newest known version, fetched where this device lacks it.

        Raises:
            VersionUnavailableError: no manifest yet, nobody answers, or what came is not what the manifest says.
            LinkDownError: something lacks, and there is no connection to ask for it.
        """
        known = self._database.known_version(task)
        if known is None:
            raise VersionUnavailableError(f"no manifest of {task} has come yet")
        try:
            await self._ensure(known.bundle)
            description = self.description(task) or parse_description(self._cache.read(known.bundle))
            if description.task != task:
                raise VersionUnavailableError(f"the manifest of {task} names a bundle of {description.task}")
            train_graph = description.files[description.training.graph_file]
            for blob in (train_graph, known.weights):
                await self._ensure(blob)
                self._cache.read(blob)
        except (ProtocolError, ConfigurationError, OSError) as error:
            raise VersionUnavailableError(str(error)) from error
        return ReadyVersion(
            known.version,
            known.bundle,
            description,
            self._cache.path(train_graph),
            self._cache.path(known.weights),
        )

    def forget_unused(self, tasks: list[str]) -> None:
        """Delete blobs that no known version of these tasks needs."""
        wanted: set[str] = set()
        for task in tasks:
            if known := self._database.known_version(task):
                wanted |= {known.bundle, known.weights}
            if description := self.description(task):
                wanted |= set(description.files.values())
        self._cache.keep_only(wanted)

    async def _ensure(self, blob: str) -> None:
        if self._cache.has(blob):
            return
        assembly = self._assemblies[blob] = BlobAssembly()
        try:
            async with self._listening_to(topics.blob_chunks(self._fleet, blob)):
                for _ in range(FETCH_ATTEMPTS):
                    await self._request(BlobRequest(bytes.fromhex(blob), assembly.missing))
                    if await self._assembled(assembly):
                        break
        finally:
            del self._assemblies[blob]
        if assembly.complete is None:
            raise VersionUnavailableError(f"blob {blob[:16]} did not come in {FETCH_ATTEMPTS} attempts")
        self._cache.write(blob, assembly.complete)

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
