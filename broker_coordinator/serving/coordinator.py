"""The coordinator without its network: intake, version maker and file server, wired together in one process.

They share a database, and but for a hand-over of decoded payloads no memory: each could run in a process of its own.
"""

import logging
import secrets
from collections.abc import Callable, Sequence

from broker_coordinator.admission.admission import Admission
from broker_coordinator.admission.decisions import FileRequested, MaskReplied, Message
from broker_coordinator.admission.settings import AdmissionSettings
from broker_coordinator.aggregation.retention import Retention
from broker_coordinator.consumers import CONSUMERS
from broker_coordinator.distribution.signed_messages import MessageSigner, Publication
from broker_coordinator.serving.broker_accounts import BrokerAccounts
from broker_coordinator.serving.file_server import FileServer
from broker_coordinator.serving.intake import Intake
from broker_coordinator.serving.manifest_watch import ManifestWatch
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.serving.older_database import note_older_database
from broker_coordinator.serving.query_rounds import QueryRounds
from broker_coordinator.serving.successions import Successions
from broker_coordinator.serving.version_maker import OnVersion, VersionMaker
from broker_coordinator.serving.waiting import DecodedBatches
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.restores import Noticed
from broker_coordinator.storage.stored_tasks import StoredTask
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle import Bundle
from fleet_host.log_lines import log_line

logger = logging.getLogger(__name__)


class Coordinator:
    """Serves the tasks in `journal`, to which `bundles` are added. `on_version` is called with each version that is
    made, `keep_lease` before any is. `manages_accounts`: of the broker, through its dynamic security. `authorities` are
    the sets of certificates that devices were to believe about the broker, in DER, the oldest set first. `draw_below`
    draws the numbers of cohorts of masked updates.

    Raises:
        JournalUnavailableError: the database can't be read.
    """

    def __init__(
        self,
        journal: Journal,
        bundles: Sequence[Bundle],
        signer: MessageSigner,
        settings: AdmissionSettings,
        *,
        retention: Retention = Retention(),  # noqa: B008 - a constant: it is frozen
        metrics: Metrics | None = None,
        on_version: OnVersion = lambda _task, _number: None,
        keep_lease: Callable[[float], None] = lambda _now: None,
        manages_accounts: bool = False,
        authorities: Sequence[Sequence[bytes]] = (),
        draw_below: Callable[[int], int] = secrets.randbelow,
    ) -> None:
        registry = TaskRegistry(journal.engine)
        decoded = DecodedBatches()
        self._keep_lease = keep_lease
        self._metrics = metrics or Metrics()
        for bundle in bundles:
            _publish_if_missing(registry, bundle)
        admission = Admission(settings, CONSUMERS)
        self._intake = Intake(journal, registry, signer, admission, metrics=self._metrics, decoded=decoded)
        self._version_maker = VersionMaker(
            journal,
            registry,
            signer,
            settings.keys,
            retention=retention,
            metrics=self._metrics,
            on_version=on_version,
            decoded=decoded,
            draw_below=draw_below,
        )
        self._query_rounds = QueryRounds(journal, signer)
        self._file_server = FileServer(
            journal, registry, signer, metrics=self._metrics, allowance=settings.chunk_allowance
        )
        self._watch = ManifestWatch(
            registry,
            (signer.key, *settings.keys),
            signer.fleet,
            is_older=lambda: note_older_database(journal.engine, Noticed.MANIFESTS),
            shards=signer.shards,
        )
        self._accounts = (
            BrokerAccounts(journal.engine, settings.keys, signer.fleet, signer.shard, signer.shards)
            if manages_accounts
            else None
        )
        self._successions = Successions(settings.keys, signer.fleet, signer.shard, authorities)

    def tasks(self) -> list[str]:
        """The names of the tasks that are served."""
        return self._version_maker.tasks()

    def handle(self, messages: Sequence[Message], now: float) -> None:
        """Decide on a batch, commit it, and queue the answers. `now` is in seconds on any one clock.

        Whoever delivered the batch acknowledges it when this has returned, and offers it again when it raised.

        Raises:
            JournalUnavailableError: nothing happened; offer the same messages again later.
        """
        self._settle_manifests(now)
        asked = self._intake.handle(messages, now)
        replies = [each for each in asked if isinstance(each, MaskReplied)]
        for reply in replies:
            self._version_maker.mask_replied(reply.device.name, reply.reply)
        if requests := [each for each in asked if isinstance(each, FileRequested)]:
            self._file_server.request(requests, now)
        if len(requests) + len(replies) < len(asked):
            self._version_maker.repeat_versions(now)
            self._query_rounds.repeat(now)
            self._successions.repeat(now)

    def make_versions(self, now: float) -> None:
        """Make and commit every version that is due.

        Raises:
            LeaseLostError: another process has taken over; this one must stop.
            JournalUnavailableError: call again later; what was committed before stands.
        """
        self._keep_lease(now)
        self._settle_manifests(now)
        self._version_maker.make_versions(now)
        self._query_rounds.advance(now)

    def reload_if_changed(self) -> None:
        """Take in what operators' commands have changed in the database. `handle` and `make_versions` do so themselves.

        Raises:
            JournalUnavailableError: call again later.
        """
        self._intake.reload_if_changed()
        self._version_maker.reload_if_changed()

    def check_manifests(self) -> None:
        """Hold everything back until the broker has told which manifests it retains: `subscribed`, then `receive`."""
        self._watch.begin()

    def subscribed_to_manifests(self, now: float) -> None:
        """The broker has confirmed it; what it retains follows."""
        self._watch.subscribed(now)

    def receive_manifest(self, message: Message, now: float) -> None:
        """Take a message from a topic of manifests."""
        self._watch.receive(message.topic, message.data, now)

    def receive_account_answer(self, message: Message) -> None:
        """Take what the broker's dynamic security answers."""
        if self._accounts:
            self._accounts.receive(message.data)

    def is_checking_manifests(self, now: float) -> bool:
        """Whether one may still be on its way: nothing may be handed over, and nothing is announced."""
        return self._watch.is_waiting(now)

    def announce_all(self) -> None:
        """Queue every retained message, of tasks and keys: the broker may have lost them."""
        if self._accounts:
            self._accounts.connected()
        self._successions.announce()
        self._version_maker.announce_versions()
        self._query_rounds.announce()

    def _settle_manifests(self, now: float) -> None:
        self._watch.settle(self._version_maker.names(), self._version_maker.manifests, now)

    def publications(self, limit: int, now: float) -> list[Publication]:
        """Take at most `limit` messages that are to be published now: keys, as devices verify the rest with them; then
        receipts, manifests, queries, chunks.
        """
        taken = self._successions.publications(limit, now)
        taken += self._intake.publications(limit - len(taken))
        if not self._watch.is_waiting(now):
            taken += self._version_maker.publications(limit - len(taken), now)
        taken += self._query_rounds.publications(limit - len(taken), now)
        taken += self._file_server.publications(limit - len(taken), now)
        if self._accounts and not self._watch.is_waiting(now):  # last: what removes one is behind the receipts for it
            taken += self._accounts.publications(limit - len(taken), now)
        self._metrics.count_published(sum(len(publication.data) for publication in taken))
        return taken

    def next_due(self) -> float | None:
        """When `publications` or `make_versions` will next have something that they have not now, or None."""
        moments = [
            self._successions.next_due(),
            self._file_server.next_due(),
            self._version_maker.next_due(),
            self._query_rounds.next_due(),
            self._watch.ends(),
            self._accounts.next_due() if self._accounts and self._watch.ends() is None else None,
        ]
        return min((moment for moment in moments if moment is not None), default=None)


def _publish_if_missing(registry: TaskRegistry, bundle: Bundle) -> None:
    served = registry.publish_if_missing(bundle)
    if served.removed or served.bundle != bundle.hash:
        logger.warning(
            log_line(
                "bundle_not_published",
                task=served.name,
                bundle=bundle.hash[:16],
                served=_served_instead(served),
                remedy="if devices are to begin anew with it, run: broker-coordinator tasks publish FOLDER",
            )
        )


def _served_instead(task: StoredTask) -> str:
    if task.removed:
        return "nothing: it was removed"
    rounds = "" if task.solved_last is None else f", whose rounds went on from version {task.solved_last}"
    return f"{task.bundle[:16]}{rounds}"
