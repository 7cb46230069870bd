"""Follows the versions of the tasks: takes verified manifests, and fetches only what a round needs.

`core.version_choice` decides what is new and what is fetched.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.core.round_participation import why_not_asked
from edge_agent.core.version_choice import (
    KnownVersion,
    ManifestNews,
    NotAskedError,
    VersionUnavailableError,
    bundle_files,
    choose_weights,
    files_to_keep,
    is_same_line,
    judge_manifest,
    known_from,
    weights_at_hand,
)
from edge_agent.producers import makes_versions_of
from edge_agent.shell.storage.blob_cache import UNFINISHED, BlobCache
from edge_agent.shell.storage.device_database import DeviceDatabase
from edge_agent.shell.versions.fetcher import Fetcher, NotFetchedError
from edge_agent.worker.contract import PackedFile, files_for
from fleet_host.log_lines import log_line
from fleet_protocol.bundle import parse_description
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.cohort import EVERYONE
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.kinds import Manifest, Selection
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.topics import PackedWeights

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReadyVersion:
    """Everything that a round needs, on this device's disk and verified.

    Where `packed` is given, `weights` is the file that the worker unpacks it into. `last` is that of the version that
    the device trained from before, where it is here and an earlier one; `last_number` its own. `cluster` is whose copy
    of the parameters this device has, where the task has copies; `own` what it keeps of the model to itself, where the
    task has it keep something.
    """

    number: int
    bundle: str
    description: TaskDescription
    files: Mapping[str, Path]
    weights: Path
    packed: PackedFile | None = None
    generation: int = 0
    last: Path | None = None
    cluster: int = NO_CLUSTER
    own: bytes = b""
    last_number: int = 0

    @property
    def blobs(self) -> set[str]:
        """Names of the files that a process reads which starts with this version, and of the one that it unpacks."""
        base = {Path(self.packed.base).name} if self.packed and self.packed.base else set[str]()
        unfinished = {self.weights.with_suffix(UNFINISHED).name} if self.packed else set[str]()
        return {path.name for path in self.files.values()} | {self.weights.name} | base | unfinished


def files_of_steps(description: TaskDescription) -> Sequence[str]:
    """What a device trains with that has the engine of every device, alone."""
    return files_for("onnx-step", description)


class VersionFollower:
    """The device's view of its tasks' versions."""

    def __init__(
        self,
        database: DeviceDatabase,
        cache: BlobCache,
        fetcher: Fetcher,
        device: str,
        *,
        needed: Callable[[TaskDescription], Sequence[str]] = files_of_steps,
        not_readable: Callable[[str, str], None] = lambda _task, _why: None,
    ) -> None:
        """`needed` says which files of a bundle are fetched for a round, besides the weights; it may raise
        `ConfigurationError`. `not_readable` is told of a task whose bundle this agent does not understand, and why.
        """
        self._device = device
        self._selection_thresholds: dict[str, int] = {}
        self._cohorts: dict[str, bytes] = {}
        self._selections: dict[str, Selection | None] = {}
        self._database = database
        self._cache = cache
        self._fetcher = fetcher
        self._needed = needed
        self._descriptions: dict[str, TaskDescription] = {}
        self._not_readable = not_readable
        self._unreadable: dict[str, str] = {}
        self._refused: set[str] = set()
        self._not_held: dict[str, PackedFile] = {}
        """By task, weights that came packed for a round that was put off before it unpacked them."""
        self._fetching = asyncio.Lock()

    def cohort(self, task: str) -> bytes:
        """The signed manifest of the task's cohort that is open, as the newest manifest has it; empty for none."""
        return self._cohorts.get(task, b"")

    def selection(self, task: str) -> Selection | None:
        """What the task asks devices for, as the newest manifest has it; None where it says nothing."""
        return self._selections.get(task)

    def description(self, task: str) -> TaskDescription | None:
        """The task's description; None until its bundle is fetched."""
        known = self._database.known_version(task)
        if known is None:
            return None
        if self._is_to_be_read(known.bundle):
            try:
                self._descriptions[known.bundle] = parse_description(self._cache.read(known.bundle))
            except ConfigurationError as error:  # it is what the manifest names: no other try would differ
                self._unreadable[known.bundle] = str(error)
                self._not_readable(task, str(error))
            except (ProtocolError, OSError) as error:
                logger.error(log_line("bundle_not_readable", task=task, error=error))
        return self._descriptions.get(known.bundle)

    def why_unreadable(self, task: str) -> str:
        """Why this agent does not understand the bundle of the newest known version; empty where it may."""
        known = self._database.known_version(task)
        return self._unreadable.get(known.bundle, "") if known else ""

    def _is_to_be_read(self, bundle: str) -> bool:
        return bundle not in self._descriptions and bundle not in self._unreadable and self._cache.has(bundle)

    def receive_manifest(self, task: str, manifest: Manifest) -> bool:
        """Take a verified manifest; False where it changes nothing for this device."""
        known = self._database.known_version(task)
        news = judge_manifest(known, self._selection_thresholds.get(task), manifest)
        if news is ManifestNews.OLD and known is not None:
            self._say_old(task, manifest, known)
            return False
        self._selection_thresholds[task] = manifest.selection_threshold
        has_new_cohort = self._cohorts.get(task, b"") != manifest.cohort
        self._cohorts[task] = manifest.cohort
        has_new_selection = task not in self._selections or self._selections[task] != manifest.selection
        self._selections[task] = manifest.selection
        if news is ManifestNews.NEW_VERSION:
            self._database.set_known_version(task, known_from(manifest))
            if known is not None and manifest.generation != known.generation:
                self._say_new_generation(task, manifest, known)
        return has_new_cohort or has_new_selection or news is not ManifestNews.REPETITION

    def _say_old(self, task: str, manifest: Manifest, known: KnownVersion) -> None:
        logger.warning(
            log_line(
                "old_manifest_ignored",
                task=task,
                version=manifest.version,
                generation=manifest.generation,
                known_version=known.version,
                known_generation=known.generation,
                remedy="none if the broker has just come back; if the coordinator's database was restored or made anew,"
                f" run there: broker-coordinator tasks renew {task} --after-generation {known.generation}",
            )
        )

    def _say_new_generation(self, task: str, manifest: Manifest, known: KnownVersion) -> None:
        if manifest.removed:
            logger.info(log_line("task_removed", task=task, generation=manifest.generation))
            return
        logger.info(
            log_line(
                "generation_followed",
                task=task,
                generation=manifest.generation,
                version=manifest.version,
                known_generation=known.generation,
                known_version=known.version,
                bundle="as before" if manifest.bundle == known.bundle else manifest.bundle[:16],
            )
        )

    async def fetch_description(self, task: str) -> None:
        """Fetch the task's description, where only its manifest is here.

        Raises:
            VersionUnavailableError: no manifest yet, or the file did not arrive.
            LinkDownError: there is no connection.
        """
        known = self._database.known_version(task)
        if known is None:
            raise VersionUnavailableError(f"no manifest of {task} has come yet")
        try:
            await self._fetch_description(task, known)
        except (NotFetchedError, ProtocolError, ConfigurationError, OSError) as error:
            raise VersionUnavailableError(str(error)) from error

    async def ready_version(self, task: str, *, if_asked: bool = True) -> ReadyVersion:
        """The newest known version; its missing files are fetched. `if_asked`: only where this device is to train.

        Raises:
            NotAskedError: the task has ended, or the device has to wait for another round.
            VersionUnavailableError: no manifest yet, files did not arrive, or are not those that the manifest names.
            LinkDownError: files are missing, and there is no connection.
        """
        known = self._database.known_version(task)
        if known is None:
            raise VersionUnavailableError(f"no manifest of {task} has come yet")
        if known.removed:
            raise NotAskedError(f"the operator has removed {task}; its samples are kept")
        try:
            description = await self._fetch_description(task, known)
            if if_asked:
                self._require_asked(description, known)
            files = bundle_files(description, self._needed(description))
            for blob in files.values():
                await self._ensure(blob)
                self._cache.verify(blob)
            packed = await self._ensure_weights(known, description)
            if packed is None:
                self._cache.verify(known.weights)
        except (NotFetchedError, ProtocolError, ConfigurationError, OSError) as error:
            raise VersionUnavailableError(str(error)) from error
        last = self._last_version(task, known)
        return ReadyVersion(
            known.version,
            known.bundle,
            description,
            {name: self._cache.path(blob) for name, blob in files.items()},
            self._cache.path(known.weights),
            packed,
            known.generation,
            self._cache.path(last.weights) if last else None,
            self._cluster(description),
            self._own(description, known.bundle),
            last.version if last else 0,
        )

    def _own(self, description: TaskDescription, bundle: str) -> bytes:
        if not (description.personal or description.gossip):
            return b""
        if description.gossip is None:
            return self._database.own_model(description.task, bundle)
        return self._database.gossip_states.model(description.task, bundle, description.parameter_count)

    def _cluster(self, description: TaskDescription) -> int:
        plan = description.clusters
        return plan.cluster(self._database.cluster(description.task)) if plan else NO_CLUSTER

    def _last_version(self, task: str, known: KnownVersion) -> KnownVersion | None:
        held = self._database.held_version(task)
        is_earlier = held is not None and is_same_line(held, known) and held.version < known.version
        return held if held and is_earlier and self._cache.has(held.weights) else None

    async def version_to_use(self, task: str, needed: Callable[[TaskDescription], Sequence[str]]) -> ReadyVersion:
        """The newest version whose weights are here; without any, the newest known one, fetched whole. With it, the
        bundle's files that are `needed`.

        Raises:
            VersionUnavailableError: no manifest yet, the task has ended or awaits its scale, or files did not arrive.
            LinkDownError: files are missing, and there is no connection.
        """
        known = self._database.known_version(task)
        if known is None:
            raise VersionUnavailableError(f"no manifest of {task} has come yet")
        try:
            description = await self._fetch_description(task, known)
            if description.scaling.is_awaited:
                raise VersionUnavailableError(f"the fleet has not made the scale of {task} yet")
            files = bundle_files(description, needed(description))
            for blob in files.values():
                await self._ensure(blob)
            chosen = weights_at_hand(known, self._database.held_version(task), self._cache.has)
            await self._ensure(chosen.weights)
            self._cache.verify(chosen.weights)
        except (NotFetchedError, ProtocolError, ConfigurationError, OSError) as error:
            raise VersionUnavailableError(str(error)) from error
        paths = {name: self._cache.path(blob) for name, blob in files.items()}
        return ReadyVersion(
            chosen.version,
            chosen.bundle,
            description,
            paths,
            self._cache.path(chosen.weights),
            generation=chosen.generation,
            cluster=self._cluster(description),
            own=self._own(description, chosen.bundle),
        )

    def hold(self, version: ReadyVersion) -> None:
        """Its weights are complete: the next version is fetched as its difference from this one."""
        held = KnownVersion(version.number, version.bundle, version.weights.name, version.generation)
        self._database.set_held_version(version.description.task, held)
        self._not_held.pop(version.description.task, None)

    def refuse_packed(self, version: ReadyVersion, error: str) -> None:
        """The packed weights were invalid: from now on this version is fetched whole."""
        self._refused.add(version.weights.name)
        logger.error(
            log_line(
                "difference_refused",
                task=version.description.task,
                version=version.number,
                error=error,
                remedy="fetching the whole weights",
            )
        )

    def forget_unused(self, tasks: Sequence[str], in_use: Iterable[ReadyVersion] = ()) -> None:
        """Delete blobs that neither the known versions of these tasks need nor those `in_use`."""
        database = self._database
        kept = set().union(
            *(
                files_to_keep(database.known_version(task), database.held_version(task), self.description(task))
                for task in tasks
            )
        )
        self._cache.keep_only(kept.union(*(each.blobs for each in in_use)))

    async def _fetch_description(self, task: str, known: KnownVersion) -> TaskDescription:
        await self._ensure(known.bundle)
        description = self.description(task)
        if description is None and (why := self.why_unreadable(task)):
            raise VersionUnavailableError(why)
        description = description or parse_description(self._cache.read(known.bundle))
        if description.task != task:
            raise VersionUnavailableError(f"the manifest of {task} names a bundle of {description.task}")
        if not makes_versions_of(description):
            raise VersionUnavailableError(
                f"versions of {task} are made from payloads of kind {description.versions_from!r}, which nothing here"
                " produces; install what does"
            )
        return description

    def _require_asked(self, description: TaskDescription, known: KnownVersion) -> None:
        if description.gossip is not None:
            return  # rounds are not of a version, and a roster says who takes part
        held = self._database.held_version(description.task)
        threshold = self._selection_thresholds.get(description.task, EVERYONE)
        trained_on = held.version if held and is_same_line(held, known) else None
        if description.selection and description.task not in self._selections:
            raise NotAskedError(f"no manifest of {description.task} has come since the start, which says who trains")
        figures = self._database.round_figures(description.task, known.bundle) if description.selection else None
        if reason := why_not_asked(
            description,
            known.version,
            self._device,
            threshold,
            trained_on,
            selection=self.selection(description.task),
            figures=figures,
        ):
            raise NotAskedError(reason)

    async def _ensure(self, blob: str) -> None:
        async with self._fetching:  # a round and a prediction may want the same file
            if not self._cache.has(blob):
                self._cache.write(blob, await self._fetcher.fetch(blob))

    async def _ensure_weights(self, known: KnownVersion, description: TaskDescription) -> PackedFile | None:
        """Fetch the weights if missing; returns them packed if they came as a difference."""
        packed = self._not_held.get(description.task)
        if (
            packed
            and packed.sha256 == known.weights
            and not (packed.sha256 in self._refused or self._cache.has(packed.sha256))
        ):
            return packed
        held = self._database.held_version(description.task)
        wanted = choose_weights(description, known, held, self._cache.has, self._refused)
        if isinstance(wanted, PackedWeights):
            try:
                difference = await self._fetcher.fetch(wanted)
            except NotFetchedError as error:
                logger.warning(log_line("difference_not_received", error=error, remedy="fetching the whole weights"))
            else:
                packed = self._packed_file(wanted, held, difference, known)
                self._not_held[description.task] = packed
                return packed
        await self._ensure(known.weights)
        return None

    def _packed_file(
        self, wanted: PackedWeights, held: KnownVersion | None, difference: bytes, known: KnownVersion
    ) -> PackedFile:
        logger.info(
            log_line(
                "difference_fetched",
                task=wanted.task,
                version=wanted.version,
                from_version=wanted.base,
                bytes=len(difference),
            )
        )
        base = str(self._cache.path(held.weights)) if held is not None and wanted.base is not None else ""
        return PackedFile(base, difference, known.weights)
