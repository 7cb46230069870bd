"""Serves files: the chunks of bundles, of weights and of packed versions that devices ask for.

Whatever goes wrong here ends with a chunk that is not published: the device asks again.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

from broker_coordinator.admission.decisions import FileRequested
from broker_coordinator.distribution.blob_store import BlobStore
from broker_coordinator.distribution.chunk_queue import ChunkQueue, Wanted
from broker_coordinator.distribution.packed_versions import PackedVersions
from broker_coordinator.distribution.signed_messages import MessageSigner, Publication
from broker_coordinator.serving.metrics import FILE_REQUEST, Metrics
from broker_coordinator.serving.preparation import Made, Preparation
from broker_coordinator.storage.change_counters import TASKS, read_change_counters
from broker_coordinator.storage.database import JournalUnavailableError
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_host.log_lines import log_line
from fleet_host.rate_limit import RateLimit, TokenBucket
from fleet_protocol.chunks import chunk_count
from fleet_protocol.errors import Reason

COUNT_INTERVAL_SECONDS = 10.0
"""Requests that were of no use are counted in memory for so long, and then in the database."""

MAX_COUNTED = 1_000
"""Reasons and devices that are counted in memory; what is beyond is counted in the metrics alone."""

MAX_DEVICES = 100_000
"""Devices whose chunks are counted at a time: more than any fleet's that have none left."""

logger = logging.getLogger(__name__)


class FileServer:
    """Serves the files of the tasks in `registry`, and of all their versions; `allowance` is in chunks, each device's.

    What is not in memory is made on `executor`, by default a thread of its own.
    """

    def __init__(
        self,
        journal: Journal,
        registry: TaskRegistry,
        signer: MessageSigner,
        *,
        metrics: Metrics,
        allowance: TokenBucket,
        executor: Executor | None = None,
    ) -> None:
        self._journal = journal
        self._registry = registry
        self._signer = signer
        self._metrics = metrics
        self._chunks = RateLimit(allowance.interval_seconds, MAX_DEVICES, burst=allowance.burst)
        self._executor = executor or ThreadPoolExecutor(1, thread_name_prefix="files")
        self._chunk_queue = ChunkQueue()
        self._useless = Counter[tuple[Reason, str]]()
        self._counts = RateLimit(COUNT_INTERVAL_SECONDS, 1)
        self._load(read_change_counters(journal.engine).get(TASKS, 0))

    def request(self, requests: Sequence[FileRequested], now: float) -> None:
        """Queue chunks; what is not there, or is too much, is counted as refused. Never raises."""
        try:
            self._reload_if_changed()
            for requested in requests:
                self._take(requested, now)
        except JournalUnavailableError as error:
            logger.warning(log_line("file_requests_dropped", error=error, requests=len(requests)))
        except Exception:  # a defect here must not stop intake
            logger.exception(log_line("file_requests_failed", requests=len(requests)))

    def publications(self, limit: int, now: float) -> list[Publication]:
        """Take at most `limit` chunks that are due."""
        if made := self._preparation.collect(now):
            self._serve_made(made, now)
        self._count_useless(now)
        due = [(wanted, number, self._in_memory(wanted)) for wanted, number in self._chunk_queue.take(limit, now)]
        return [self._signer.chunk(wanted, content, number) for wanted, number, content in due if content is not None]

    def next_due(self) -> float | None:
        """When `publications` will next return something, or None."""
        moments = [self._chunk_queue.next_due(), self._preparation.next_due()]
        return min((moment for moment in moments if moment is not None), default=None)

    def _reload_if_changed(self) -> None:
        found = read_change_counters(self._journal.engine).get(TASKS, 0)
        if found != self._tasks_counter:
            self._load(found)

    def _load(self, tasks_counter: int) -> None:
        bundles = [bundle for _, bundle in self._registry.served().readable]
        store = BlobStore(bundles, self._journal.weights_named)
        packed = PackedVersions(bundles, self._journal.weights_of)
        self._store = store
        self._preparation = Preparation(
            lambda wanted: store.blob(wanted) if isinstance(wanted, str) else packed.find(wanted), self._executor
        )
        self._awaited: dict[Wanted, dict[str, tuple[int, ...]]] = {}
        self._tasks_counter = tasks_counter

    def _take(self, requested: FileRequested, now: float) -> None:
        wanted = requested.wanted
        device = requested.device.name
        content = self._in_memory(wanted)
        if content is not None:
            self._queue(wanted, content, device, requested.chunks, now)
        elif self._chunks.allows(device, now) and self._preparation.ask(wanted, device):
            self._awaited.setdefault(wanted, {})[device] = requested.chunks
        else:
            self._refuse(Reason.RATE_LIMITED, device)

    def _in_memory(self, wanted: Wanted) -> bytes | None:
        file = self._store.file(wanted) if isinstance(wanted, str) else None
        return file if file is not None else self._preparation.find(wanted)

    def _queue(self, wanted: Wanted, content: bytes, device: str, chunks: Sequence[int], now: float) -> None:
        every = range(chunk_count(len(content)))
        numbers = [number for number in chunks if number in every] if chunks else every
        is_allowed = self._chunks.allows(device, now, max(1, len(numbers)))
        if not is_allowed or self._chunk_queue.request(wanted, numbers, now):
            self._refuse(Reason.RATE_LIMITED, device)

    def _serve_made(self, made: Made, now: float) -> None:
        awaiting = self._awaited.pop(made.wanted, {})
        if isinstance(made.error, JournalUnavailableError):
            logger.warning(log_line("file_requests_dropped", error=made.error, requests=len(awaiting)))
            return
        if made.error is not None:
            logger.error(log_line("file_failed", wanted=made.wanted), exc_info=made.error)
        for device, chunks in awaiting.items():
            if made.content is not None:
                self._queue(made.wanted, made.content, device, chunks, now)
            else:
                self._refuse(Reason.WRONG_HASH, device)

    def _refuse(self, reason: Reason, device: str) -> None:
        self._metrics.count_dropped(FILE_REQUEST)
        if (reason, device) in self._useless or len(self._useless) < MAX_COUNTED:
            self._useless[reason, device] += 1

    def _count_useless(self, now: float) -> None:
        """Add them to the database together: a commit for each would cost more than the answers."""
        if not self._useless or not self._counts.allows(None, now):
            return
        (reason, device), most = self._useless.most_common(1)[0]
        total = self._useless.total()
        try:
            self._journal.count_rejections(self._useless)
            logger.warning(
                log_line("file_requests_refused", requests=total, most_from=device, of_these=most, reason=reason.value)
            )
            self._useless.clear()
        except JournalUnavailableError as error:
            logger.warning(log_line("file_requests_dropped", error=error, requests=total))
