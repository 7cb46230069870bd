"""What one process alone does for a fleet, however many take in: versions, rosters, queries, successions, accounts."""

import logging
from collections.abc import Callable, Sequence

from broker_coordinator.admission.settings import AdmissionSettings
from broker_coordinator.aggregation.retention import Retention
from broker_coordinator.distribution.signed_messages import MessageSigner, Publication
from broker_coordinator.serving.broker_accounts import BrokerAccounts
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.serving.query_rounds import QueryRounds
from broker_coordinator.serving.rosters import Rosters
from broker_coordinator.serving.successions import Successions
from broker_coordinator.serving.version_maker import OnVersion, VersionMaker
from broker_coordinator.serving.waiting import DecodedBatches
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.stored_tasks import StoredTask
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle import Bundle
from fleet_host.log_lines import log_line
from fleet_protocol.kinds import MaskReply

logger = logging.getLogger(__name__)


class Leading:
    """Adds `bundles` to the tasks in `registry`, and makes their versions; parameters are as `Coordinator` has them.

    Raises:
        JournalUnavailableError: the database can't be read.
        ConfigurationError: nothing here makes versions of a bundle.
    """

    def __init__(
        self,
        journal: Journal,
        registry: TaskRegistry,
        bundles: Sequence[Bundle],
        signer: MessageSigner,
        settings: AdmissionSettings,
        *,
        retention: Retention,
        metrics: Metrics,
        on_version: OnVersion,
        decoded: DecodedBatches,
        draw_below: Callable[[int], int],
        manages_accounts: bool,
        authorities: Sequence[Sequence[bytes]],
    ) -> None:
        for bundle in bundles:
            _publish_if_missing(registry, bundle)
        self._version_maker = VersionMaker(
            journal,
            registry,
            signer,
            settings.keys,
            retention=retention,
            metrics=metrics,
            on_version=on_version,
            decoded=decoded,
            draw_below=draw_below,
        )
        self._query_rounds = QueryRounds(journal, signer)
        self._rosters = Rosters(journal.engine, registry, signer, (signer.key, *settings.keys), metrics)
        self._accounts = (
            BrokerAccounts(journal.engine, settings.keys, signer.fleet, signer.shard, signer.shards)
            if manages_accounts
            else None
        )
        self._successions = Successions(settings.keys, signer.fleet, signer.shard, authorities)

    def names(self) -> set[str]:
        """Of all tasks, the removed ones too."""
        return self._version_maker.manifests.names()

    def advance(self, now: float) -> None:
        """Make and commit every version that is due, every round of queries, and every roster."""
        self._version_maker.make_versions(now)
        self._query_rounds.advance(now)
        self._rosters.advance(now)

    def reload_if_changed(self) -> None:
        """Take in what is new in the journal, and what operators have changed. `advance` does so by itself."""
        self._version_maker.reload_if_changed()

    def mask_replied(self, helper: str, reply: MaskReply) -> None:
        """Take what a mask helper says; `advance` goes on with it."""
        self._version_maker.mask_replied(helper, reply)

    def repeat(self, now: float) -> None:
        """Publish what is retained again, soon: a device has come. But rosters, which are long (`Rosters`)."""
        self._version_maker.manifests.repeat(now)
        self._query_rounds.repeat(now)
        self._successions.repeat(now)

    def announce(self) -> None:
        """Queue every retained message, of tasks and keys: the broker may have lost them."""
        if self._accounts:
            self._accounts.connected()
        self._successions.announce()
        self._version_maker.manifests.announce()
        self._query_rounds.announce()
        self._rosters.announce()

    def receive_roster(self, topic: str, data: bytes, now: float) -> None:
        """Take what the broker retains on a topic of rosters; `advance` goes on with it."""
        self._rosters.receive(topic, data, now)

    def receive_account_answer(self, data: bytes) -> None:
        """Take what the broker's dynamic security answers."""
        if self._accounts:
            self._accounts.receive(data)

    def keys(self, limit: int, now: float) -> list[Publication]:
        """Take at most `limit` successions that are to be published now: devices verify the rest with them."""
        return self._successions.publications(limit, now)

    def publications(self, limit: int, now: float) -> list[Publication]:
        """Take at most `limit` manifests, rosters and queries."""
        taken = self._version_maker.publications(limit, now)
        taken += self._rosters.publications(limit - len(taken), now)
        return taken + self._query_rounds.publications(limit - len(taken), now)

    def accounts(self, limit: int, now: float) -> list[Publication]:
        """Take at most `limit` requests to the broker's dynamic security."""
        return self._accounts.publications(limit, now) if self._accounts else []

    def next_due(self, *, may_announce: bool) -> float | None:
        """When there will next be something that is not now, or None; `may_announce`: manifests are not held back."""
        moments = [
            self._successions.next_due(),
            self._version_maker.next_due(),
            self._query_rounds.next_due(),
            self._rosters.next_due(),
            self._accounts.next_due() if self._accounts and may_announce else None,
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
