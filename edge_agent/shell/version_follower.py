"""Follows the versions of the tasks: believes signed manifests, fetches what a round needs, and no more."""

import logging
from dataclasses import dataclass
from pathlib import Path

from edge_agent.core.round_participation import why_not_asked
from edge_agent.shell.blob_cache import BlobCache
from edge_agent.shell.device_database import DeviceDatabase, KnownVersion
from edge_agent.shell.fetcher import Fetcher, NotFetchedError
from edge_agent.worker.contract import EngineName, PackedFile, files_for
from fleet_protocol.bundle import TaskDescription, parse_description
from fleet_protocol.cohort import EVERYONE
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.kinds import Manifest
from fleet_protocol.topics import PackedWeights

log = logging.getLogger(__name__)


class VersionUnavailableError(Exception):
    """No version can be trained on right now; says why."""


class NotAskedError(VersionUnavailableError):
    """The task works in rounds, and this device has no part in the one that runs, or has had it."""


@dataclass(frozen=True, slots=True)
class ReadyVersion:
    """Everything that a round needs, on this device's disk and verified.

    Where `packed` is given, `weights` is the file that the worker unpacks it into.
    """

    number: int
    bundle: str
    description: TaskDescription
    files: dict[str, Path]
    weights: Path
    packed: PackedFile | None = None


class VersionFollower:
    """The device's view of its tasks' versions."""

    def __init__(
        self,
        database: DeviceDatabase,
        cache: BlobCache,
        fetcher: Fetcher,
        device: str,
        *,
        engine: EngineName = "onnx-step",
    ) -> None:
        """`engine` is the one that trains on this device: it decides which files of a bundle are fetched."""
        self._device = device
        self._asked_below: dict[str, int] = {}
        self._database = database
        self._cache = cache
        self._fetcher = fetcher
        self._engine = engine
        self._descriptions: dict[str, TaskDescription] = {}
        self._refused: set[str] = set()

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
        """Take in a verified manifest; False where it is no news."""
        known = self._database.known_version(task)
        heard = KnownVersion(manifest.version, manifest.bundle, manifest.weights)
        if known == heard:
            asked_before = self._asked_below.get(task)
            self._asked_below[task] = manifest.selection_threshold
            return asked_before not in (None, manifest.selection_threshold)
        if known is not None and heard.version <= known.version:
            log.warning(
                "event=old_manifest_ignored task=%s version=%d known_version=%d remedy=%r",
                task,
                heard.version,
                known.version,
                "none if the broker has just come back; if the coordinator was set up anew, empty this state_folder",
            )
            return False
        self._database.know_version(task, heard)
        self._asked_below[task] = manifest.selection_threshold
        return True

    async def ready_version(self, task: str) -> ReadyVersion:
        """The newest known version, fetched where this device lacks it.

        Raises:
            NotAskedError: the device has to wait for another round.
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
            self._require_asked(description, known)
            needed = files_for(self._engine, description)
            if missing := [name for name in needed if name not in description.files]:
                raise VersionUnavailableError(
                    f"the bundle of {task} lacks {', '.join(missing)}: export it with --ort-training, or choose"
                    " [worker] engine = 'onnx-step'"
                )
            files = {name: description.files[name] for name in needed}
            for blob in files.values():
                await self._ensure(blob)
                self._cache.verify(blob)
            packed = await self._ensure_weights(known, description)
            if packed is None:
                self._cache.verify(known.weights)
        except (NotFetchedError, ProtocolError, ConfigurationError, OSError) as error:
            raise VersionUnavailableError(str(error)) from error
        return ReadyVersion(
            known.version,
            known.bundle,
            description,
            {name: self._cache.path(blob) for name, blob in files.items()},
            self._cache.path(known.weights),
            packed,
        )

    def _require_asked(self, description: TaskDescription, known: KnownVersion) -> None:
        held = self._database.held_version(description.task)
        below, trained_on = self._asked_below.get(description.task, EVERYONE), held.version if held else None
        if reason := why_not_asked(description, known.version, self._device, below, trained_on):
            raise NotAskedError(reason)

    def hold(self, version: ReadyVersion) -> None:
        """Its weights are complete: the next version is fetched as its difference from this one."""
        held = KnownVersion(version.number, version.bundle, version.weights.name)
        self._database.hold_version(version.description.task, held)

    def refuse_packed(self, version: ReadyVersion, error: str) -> None:
        """The packed weights were not what they should be: from now on this version is fetched whole."""
        self._refused.add(version.weights.name)
        log.error(
            "event=difference_refused task=%s version=%d error=%r remedy='fetching the whole weights'",
            version.description.task,
            version.number,
            error,
        )

    def forget_unused(self, tasks: list[str]) -> None:
        """Delete blobs that no known version of these tasks needs."""
        wanted: set[str] = set()
        for task in tasks:
            if known := self._database.known_version(task):
                wanted |= {known.bundle, known.weights}
            if held := self._database.held_version(task):
                wanted.add(held.weights)  # the next version is fetched as its difference from this one
            if description := self.description(task):
                wanted |= set(description.files.values())
        self._cache.keep_only(wanted)

    async def _ensure(self, blob: str) -> None:
        if not self._cache.has(blob):
            self._cache.write(blob, await self._fetcher.fetch(blob))

    async def _ensure_weights(self, known: KnownVersion, description: TaskDescription) -> PackedFile | None:
        """The weights on the disk, or as they came, packed."""
        if (
            description.downlink.packs(known.version)
            and known.weights not in self._refused
            and not self._cache.has(known.weights)
        ):
            try:
                return await self._fetch_packed(known, description)
            except NotFetchedError as error:
                log.warning("event=difference_did_not_come error=%r remedy='fetching the whole weights'", str(error))
        await self._ensure(known.weights)
        return None

    async def _fetch_packed(self, known: KnownVersion, description: TaskDescription) -> PackedFile:
        held = self._database.held_version(description.task)
        if held is not None and (held.bundle != known.bundle or not self._cache.has(held.weights)):
            held = None
        wanted = PackedWeights(description.task, known.version, held.version if held else None)
        difference = await self._fetcher.fetch(wanted)
        log.info(
            "event=difference_fetched task=%s version=%d from_version=%s bytes=%d",
            description.task,
            known.version,
            wanted.base,
            len(difference),
        )
        return PackedFile(str(self._cache.path(held.weights)) if held else "", difference, known.weights)
