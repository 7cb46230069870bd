"""The coordinator without its network: intake, file server and, where it leads, version maker, wired together.

They share a database, and but for a hand-over of decoded payloads no memory: each could run in a process of its own.
"""

import secrets
from collections.abc import Callable, Sequence
from functools import partial

from broker_coordinator.admission.admission import Admission
from broker_coordinator.admission.decisions import FileRequested, MaskReplied, Message
from broker_coordinator.admission.settings import AdmissionSettings
from broker_coordinator.aggregation.retention import Retention
from broker_coordinator.consumers import CONSUMERS
from broker_coordinator.distribution.signed_messages import MessageSigner, Publication
from broker_coordinator.serving.file_server import FileServer
from broker_coordinator.serving.intake import Intake
from broker_coordinator.serving.leading import Leading
from broker_coordinator.serving.manifest_watch import ManifestWatch
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.serving.older_database import note_older_database
from broker_coordinator.serving.version_maker import OnVersion
from broker_coordinator.serving.waiting import DecodedBatches
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.restores import Noticed
from broker_coordinator.storage.stored_manifests import stored_manifests
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle import Bundle

LOOK_SECONDS = 0.1
"""Between two looks of who leads at what other shards have taken in. A look is three small reads."""


class Coordinator:
    """Serves the tasks in `journal`, to which `bundles` are added. `on_version` is called with each version that is
    made, `keep_lease` before any is, `confirm_lease` after them: what is retained for all devices is published only
    once it has not raised; None where no other process can have the lease. `manages_accounts`: of the broker, through
    its dynamic security. `authorities` are the sets of certificates that devices were to believe about the broker, in
    DER, the oldest set first. `draw_below` draws the numbers of cohorts of masked updates.

    Where a fleet has several shards, each is served by a process of its own, and one of them leads: from when
    `may_lead` says so, until it ends. `on_lead` is called when it begins. The others take in and serve files.

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
        confirm_lease: Callable[[], None] | None = None,
        may_lead: Callable[[], bool] = lambda: True,
        on_lead: Callable[[], None] = lambda: None,
        manages_accounts: bool = False,
        authorities: Sequence[Sequence[bytes]] = (),
        draw_below: Callable[[int], int] = secrets.randbelow,
    ) -> None:
        registry = TaskRegistry(journal.engine)
        self._decoded = DecodedBatches()
        self._keep_lease = keep_lease
        self._confirm_lease = confirm_lease
        self._is_confirmed = False
        self._may_lead = may_lead
        self._on_lead = on_lead
        self._metrics = metrics or Metrics()
        self._engine = journal.engine
        self._begin_leading = partial(
            Leading,
            journal,
            registry,
            bundles,
            signer,
            settings,
            retention=retention,
            metrics=self._metrics,
            on_version=on_version,
            decoded=self._decoded,
            draw_below=draw_below,
            manages_accounts=manages_accounts,
            authorities=authorities,
        )
        self._has_others = len(settings.shards) > 1
        self._look_at: float | None = None
        self._leading: Leading | None = None
        self._lead_if_it_may()
        admission = Admission(settings, CONSUMERS)
        self._intake = Intake(journal, registry, signer, admission, metrics=self._metrics, decoded=self._decoded)
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

    @property
    def leads(self) -> bool:
        """Whether it makes the versions."""
        return self._leading is not None

    def tasks(self) -> list[str]:
        """The names of the tasks that are served."""
        return self._intake.tasks()

    def handle(self, messages: Sequence[Message], now: float) -> None:
        """Decide on a batch, commit it, and queue the answers. `now` is in seconds on any one clock.

        Whoever delivered the batch acknowledges it when this has returned, and offers it again when it raised.

        Raises:
            JournalUnavailableError: nothing happened; offer the same messages again later.
        """
        self._is_confirmed = False
        self._settle_manifests(now)
        asked = self._intake.handle(messages, now)
        if requests := [each for each in asked if isinstance(each, FileRequested)]:
            self._file_server.request(requests, now)
        if self._leading is None:
            self._decoded.forget()
            return
        replies = [each for each in asked if isinstance(each, MaskReplied)]
        for reply in replies:
            self._leading.mask_replied(reply.device.name, reply.reply)
        if len(requests) + len(replies) < len(asked):
            self._leading.repeat(now)

    def make_versions(self, now: float) -> None:
        """Make and commit every version that is due, if this process leads, or may from now on.

        Raises:
            LeaseLostError: another process has taken over; this one must stop.
            JournalUnavailableError: call again later; what was committed before stands.
        """
        self._keep_lease(now)
        self._lead_if_it_may()
        self._settle_manifests(now)
        if self._leading is None:
            return
        if self._has_others:
            self._look_at = now + LOOK_SECONDS
            if self._intake.has_come_elsewhere():
                self._leading.repeat(now)
        self._leading.advance(now)
        if self._confirm_lease:
            self._confirm_lease()
            self._is_confirmed = True

    def _lead_if_it_may(self) -> None:
        if not self._may_lead() or self._leading is not None:
            return
        self._leading = self._begin_leading()
        if self._has_others:  # else it leads before it is connected
            self._leading.announce()
        self._on_lead()

    def reload_if_changed(self) -> None:
        """Take in what operators' commands have changed in the database. `handle` and `make_versions` do so themselves.

        Raises:
            JournalUnavailableError: call again later.
        """
        self._intake.reload_if_changed()
        if self._leading:
            self._leading.reload_if_changed()

    def check_manifests(self) -> None:
        """Hold everything back until the broker has told which manifests it retains: `subscribed`, then `receive`."""
        self._watch.begin()

    def subscribed_to_manifests(self, now: float) -> None:
        """The broker has confirmed it; what it retains follows."""
        self._watch.subscribed(now)

    def receive_manifest(self, message: Message, now: float) -> None:
        """Take a message from a topic of manifests. A former leader may have published an older one, even after it was
        last confirmed: what was on its way to the broker then is sent again with its next connection.
        """
        if self._watch.receive(message.topic, message.data, now) and self._leading:
            self._leading.repeat(now)

    def receive_roster(self, message: Message, now: float) -> None:
        """Take a message from a topic of rosters."""
        if self._leading:
            self._leading.receive_roster(message.topic, message.data, now)

    def receive_account_answer(self, message: Message) -> None:
        """Take what the broker's dynamic security answers."""
        if self._leading:
            self._leading.receive_account_answer(message.data)

    def is_checking_manifests(self, now: float) -> bool:
        """Whether one may still be on its way: nothing may be handed over, and nothing is announced."""
        return self._watch.is_waiting(now)

    def announce_all(self) -> None:
        """Queue every retained message, of tasks and keys: the broker may have lost them."""
        self._is_confirmed = False
        if self._leading:
            self._leading.announce()

    def _settle_manifests(self, now: float) -> None:
        # Read when a manifest has come: of a version that another process makes this one hears only so.
        names = self._leading.names() if self._leading else set(self._intake.tasks())
        self._watch.settle(names, partial(stored_manifests, self._engine), now)

    def publications(self, limit: int, now: float) -> list[Publication]:
        """Take at most `limit` messages that are to be published now: keys, as devices verify the rest with them; then
        receipts, manifests, rosters, queries, chunks.
        """
        leading, may_announce = self._leading, self._may_announce(now)
        taken = leading.keys(limit, now) if leading else []
        taken += self._intake.publications(limit - len(taken))
        if leading and may_announce:
            taken += leading.publications(limit - len(taken), now)
        taken += self._file_server.publications(limit - len(taken), now)
        if leading and may_announce:  # last: what removes an account is behind the receipts for it
            taken += leading.accounts(limit - len(taken), now)
        self._metrics.count_published(sum(len(publication.data) for publication in taken))
        return taken

    def _may_announce(self, now: float) -> bool:
        """Whether what devices hear is still this process's to say: each confirmation is good for one time."""
        is_confirmed, self._is_confirmed = self._is_confirmed or self._confirm_lease is None, False
        return is_confirmed and not self._watch.is_waiting(now)

    def next_due(self) -> float | None:
        """When `publications` or `make_versions` will next have something that they have not now, or None."""
        moments = [
            self._file_server.next_due(),
            self._leading.next_due(may_announce=self._watch.ends() is None) if self._leading else None,
            self._watch.ends(),
            self._look_at,
        ]
        return min((moment for moment in moments if moment is not None), default=None)
