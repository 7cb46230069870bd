"""Serves files: the chunks of bundles, of weights and of packed versions that devices ask for.

Whatever goes wrong here ends with a chunk that is not published: the device asks again.
"""

import logging
from collections import Counter
from collections.abc import Sequence

from broker_coordinator.admission.decisions import FileRequested
from broker_coordinator.distribution.blob_store import BlobStore
from broker_coordinator.distribution.chunk_queue import ChunkQueue, Wanted
from broker_coordinator.distribution.packed_versions import PackedVersions
from broker_coordinator.distribution.signed_messages import MessageSigner, Publication
from broker_coordinator.storage.change_counters import TASKS, read_change_counters
from broker_coordinator.storage.database import JournalUnavailableError
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_host.log_lines import log_line
from fleet_protocol.chunks import chunk_count
from fleet_protocol.errors import Reason

logger = logging.getLogger(__name__)


class FileServer:
    """Serves the files of the tasks in `registry`, and of all their versions."""

    def __init__(self, journal: Journal, registry: TaskRegistry, signer: MessageSigner) -> None:
        self._journal = journal
        self._registry = registry
        self._signer = signer
        self._chunk_queue = ChunkQueue()
        self._load(read_change_counters(journal.engine).get(TASKS, 0))

    def request(self, requests: Sequence[FileRequested], now: float) -> None:
        """Queue chunks; what is not there is counted as refused. Never raises."""
        try:
            self._reload_if_changed()
            missing: Counter[tuple[Reason, str]] = Counter()
            for requested in requests:
                if not self._queue(requested, now):
                    missing[Reason.WRONG_HASH, requested.device.name] += 1
            if missing:
                self._journal.count_rejections(missing)
        except JournalUnavailableError as error:
            logger.warning(log_line("file_requests_dropped", error=error, requests=len(requests)))
        except Exception:  # a defect here must not stop intake
            logger.exception(log_line("file_requests_failed", requests=len(requests)))

    def publications(self, limit: int, now: float) -> list[Publication]:
        """Take at most `limit` chunks that are due."""
        due = [(wanted, number, self._find(wanted)) for wanted, number in self._chunk_queue.take(limit, now)]
        return [self._signer.chunk(wanted, content, number) for wanted, number, content in due if content is not None]

    def next_due(self) -> float | None:
        """When `publications` will next return something, or None."""
        return self._chunk_queue.next_due()

    def _reload_if_changed(self) -> None:
        found = read_change_counters(self._journal.engine).get(TASKS, 0)
        if found != self._tasks_counter:
            self._load(found)

    def _load(self, tasks_counter: int) -> None:
        bundles = self._registry.readable_bundles()
        self._store = BlobStore(bundles, self._journal.weights_named)
        self._packed = PackedVersions(bundles, self._journal.weights_of)
        self._tasks_counter = tasks_counter

    def _queue(self, requested: FileRequested, now: float) -> bool:
        content = self._find(requested.wanted)
        if content is None:
            return False
        every = range(chunk_count(len(content)))
        numbers = [number for number in requested.chunks if number in every] if requested.chunks else every
        self._chunk_queue.request(requested.wanted, numbers, now)
        return True

    def _find(self, wanted: Wanted) -> bytes | None:
        try:
            return self._store.blob(wanted) if isinstance(wanted, str) else self._packed.find(wanted)
        except JournalUnavailableError:
            return None
        except Exception:  # a version that can't be packed must not hold up other files
            logger.exception(log_line("file_failed", wanted=wanted))
            return None
