"""What every member of a fleet has, whatever it is there for: connection, enrolment, versions of its tasks, outbox.

Its messages are passed on to its duty: a device's is to train (`edge_agent.shell.agent`), a helper's to compute for
others.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from edge_agent.configuration import AgentConfiguration
from edge_agent.core.boot_numbers import must_continue_boots
from edge_agent.core.enrolment import must_enrol_again
from edge_agent.core.outbox import OutboxRow
from edge_agent.core.version_choice import begins_generation, invites_to_round, known_from
from edge_agent.shell.connection.answers import Answers
from edge_agent.shell.connection.authority_follower import AuthorityFollower
from edge_agent.shell.connection.enrolled_name import EnrolledName
from edge_agent.shell.connection.enrolment import EnrolmentKeeper
from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.connection.inbox import Inbox
from edge_agent.shell.connection.key_follower import KeyFollower
from edge_agent.shell.connection.link import Link
from edge_agent.shell.connection.pinned_authorities import pinned_authorities
from edge_agent.shell.connection.pinned_keys import PinnedKeys
from edge_agent.shell.connection.postbox import Postbox
from edge_agent.shell.connection.presence import PresenceKeeper
from edge_agent.shell.connection.shard_keeper import ShardKeeper
from edge_agent.shell.duty import Alone, AmongNeighbours, Duty, Sessions
from edge_agent.shell.storage.blob_cache import BlobCache
from edge_agent.shell.storage.device_database import DeviceDatabase
from edge_agent.shell.versions.fetcher import Fetcher
from edge_agent.shell.versions.manifest_listener import ManifestListener
from edge_agent.shell.versions.version_follower import VersionFollower
from fleet_host.log_lines import log_line
from fleet_protocol import topics
from fleet_protocol.broker_accounts import client_identifier
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import VerifyKey
from fleet_protocol.kinds import (
    BLOB_REQUEST,
    ENROLMENT,
    FROM_COORDINATOR,
    KINDS,
    MASK_REQUEST,
    WEIGHTS_REQUEST,
    BlobChunk,
    BlobRequest,
    Enrolment,
    Invitation,
    Manifest,
    MaskRequest,
    Outcome,
    PayloadKind,
    Presence,
    PresenceState,
    Queries,
    Receipt,
    Roster,
    WeightsRequest,
    encode_payload,
)
from fleet_protocol.kinds.kind import Leaf
from fleet_protocol.limits import MAX_BOOT
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.topics import PackedWeights

logger = logging.getLogger(__name__)


class Membership:
    """One member of one fleet. `duty` and `sessions` are to be set before its link runs. `asked` hears what is asked
    about samples, and `neighbours` what devices tell each other, where somebody sets them.

    Raises:
        ConfigurationError: the state folder can't be used, or is another device's.
    """

    duty: Duty
    sessions: Sessions

    def __init__(
        self,
        configuration: AgentConfiguration,
        identity: Identity,
        software: str,
        database: DeviceDatabase,
        cache: BlobCache,
        *,
        needed: Callable[[TaskDescription], Sequence[str]],
        also_hears: Callable[[], Sequence[str]] = tuple,
        mask_request: Callable[[MaskRequest], None] | None = None,
    ) -> None:
        """`needed` says which files of a bundle are fetched, besides the weights (`VersionFollower`); `also_hears`
        gives topics that it stays subscribed to. `mask_request` hears requests to a mask helper, which are longer than
        whatever comes to other members.
        """
        self._configuration = configuration
        self.identity = identity
        self._software = software
        self.tasks = [task.name for task in configuration.tasks]
        self.asked: Callable[[str, Queries], object] = lambda _task, _queries: None
        self.neighbours: AmongNeighbours = Alone()
        self.database = database
        identity.move(database.own_shard.begin(configuration.shard))
        identity.boot = database.boot
        pinned = PinnedKeys(configuration.state_folder, identity.coordinator)
        identity.coordinator = pinned.newest
        self._name = EnrolledName(configuration.state_folder, configuration.device, identity.public_key)
        self._name.check()
        self._also_hears = also_hears
        self._answers = Answers(configuration, identity, database.has_settled)
        self._inbox = Inbox(
            configuration.fleet,
            identity,
            receipt=self._handle_receipt,
            manifest=self._handle_manifest,
            not_readable=self._handle_not_readable,
            invitation=self._handle_invitation,
            succession=self._handle_succession,
            authorities=self._handle_authorities,
            queries=self._handle_queries,
            chunk=self._handle_chunk,
            roster=self._handle_roster,
            mask_request=mask_request,
        )
        self.link = Link(
            configuration.broker,
            client_identifier(configuration.fleet, configuration.device),
            last_will=(identity.state_topic, self._signed_presence(PresenceState.OFFLINE)),
            on_connected=self._on_connected,
            handle=self._handle,
            filters=self._filters(),
            maximum_message_bytes=max(
                kind.max_bytes
                for kind in KINDS.values()
                if kind.leaf in FROM_COORDINATOR and (kind is not MASK_REQUEST or mask_request is not None)
            ),
        )
        authorities = pinned_authorities(configuration.state_folder, configuration.broker)
        if authorities is not None:
            self.link.trust(authorities.file)
        self._authorities = AuthorityFollower(configuration.fleet, authorities, self.link)
        self._keys = KeyFollower(pinned, identity, self.link, followed=self._handle_new_key)
        self._shard = ShardKeeper(identity, database.own_shard, self.link, moved=self._handle_moved)
        self._presence = PresenceKeeper(self._publish_presence, lambda: self.manifests.lacks_any)
        self.manifests = ManifestListener(
            configuration.fleet,
            self.tasks,
            self.link,
            is_needed=self._waits_for_version,
            awaited=self._presence.manifest_awaited,
        )
        self._fetcher = Fetcher(configuration.fleet, self.link.listening_to, self._request)
        self.versions = VersionFollower(
            database,
            cache,
            self._fetcher,
            configuration.device,
            needed=needed,
            not_readable=self._handle_not_readable,
        )
        self.postbox = Postbox(
            database,
            identity.sign_row,
            self._publish_waiting,
            answered=self._handle_answer,
        )
        self._enrolment = EnrolmentKeeper(
            database,
            sign=self._sign_enrolment,
            publish=self._publish_answered,
            while_enrolled=self._while_enrolled,
        )

    async def end_at_damage(self) -> None:
        """Wait for damage of the database, whoever meets it, and whatever becomes of the error there.

        Raises:
            ConfigurationError: the card has damaged it; what is lost, and what to do.
        """
        damaged = asyncio.Event()
        self.database.call_at_damage(damaged.set)
        if self.database.damage is None:
            await damaged.wait()
        raise ConfigurationError(self.database.damage)

    def status_line(self, state: str) -> str:
        """What the service manager shows of a member whose duty is in `state`."""
        link = "connected" if self.link.connected else "not connected to the broker"
        return f"{state}, {link}, {self.database.waiting()} updates wait for a receipt"

    async def _on_connected(self) -> None:
        """Enrol and deliver, for as long as the connection lasts."""
        self.sessions.connected()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keys.keep())
            group.create_task(self._authorities.keep())
            group.create_task(self._shard.keep())
            group.create_task(self.manifests.keep())
            group.create_task(self._enrolment.keep())
            group.create_task(self.neighbours.keep())
            group.create_task(self.postbox.deliver())

    async def _while_enrolled(self) -> None:
        """Publish the presence, which the coordinator takes from enrolled devices only."""
        self.postbox.send_all()
        self.duty.enrolled()
        self.neighbours.look_again()
        await self._presence.keep()

    async def _publish_up(self, signed: bytes) -> None:
        await self.link.publish(self.identity.up_topic, signed)

    async def say(self, kind: PayloadKind, payload: bytes) -> None:
        """Publish what is not journalled, and gets no receipt.

        Raises:
            LinkDownError: there is no connection; it is not repeated.
        """
        await self._publish_up(self.identity.sign_control(kind, payload))

    async def _publish_answered(self, signed: bytes) -> None:
        """Publish what the coordinator answers with a receipt. Where none comes, its shard may be another one now."""
        await self._publish_up(signed)
        if self._answers.await_one():
            for task in self.tasks:
                self.manifests.look(task)

    async def _publish_waiting(self, envelope: bytes) -> None:
        await self._publish_answered(self.identity.addressed(envelope))

    async def _publish_presence(self) -> None:
        signed = self._signed_presence(PresenceState.ONLINE)
        self._answers.signed(signed)
        await self.link.publish(self.identity.state_topic, signed, retain=True)

    async def _request(self, request: BlobRequest | WeightsRequest, task: str) -> None:
        kind = BLOB_REQUEST if isinstance(request, BlobRequest) else WEIGHTS_REQUEST
        known = self.database.known_version(task)
        signed = self.identity.sign_control(kind, encode_payload(request), task, known.generation if known else 0)
        self._answers.signed(signed)
        await self._publish_up(signed)

    def _signed_presence(self, state: PresenceState) -> bytes:
        return self.identity.sign_presence(encode_payload(Presence(state, self.identity.boot)))

    def _sign_enrolment(self) -> bytes:
        enrolment = Enrolment(
            public_key=self.identity.public_key,
            profile=self._configuration.profile_name,
            software=self._software,
            tasks=self.tasks,
        )
        signed = self.identity.sign_control(ENROLMENT, encode_payload(enrolment))
        self._answers.signed(signed)
        return signed

    def _filters(self) -> list[str]:
        invitations = [topics.invitation(self._configuration.fleet, task) for task in self.tasks]
        return [self.identity.down_topic, *invitations, *self._also_hears()]

    def _handle(self, topic: str, data: bytes) -> None:
        if topics.leaf_of(topic) == Leaf.RELAYED.value:
            # also under a shard that was left: a session goes on where it began
            self.sessions.relayed(data)
        elif topics.is_gossip(topic):
            self.neighbours.hear(topic, data)
        else:
            self._inbox.handle(topic, data)

    def _waits_for_version(self, task: str) -> bool:
        return self.duty.waits_for_version(task)

    def _handle_answer(self, row: OutboxRow, receipt: Receipt) -> None:
        self.duty.answered(row, receipt)

    def _handle_manifest(self, task: str, manifest: Manifest) -> None:
        if self.versions.receive_manifest(task, manifest):
            self.duty.manifest_changed(task)
            self.neighbours.look_again()
            self.postbox.manifest_changed(task, manifest)
        known = self.database.known_version(task)
        if known is not None and known == known_from(manifest):
            self.manifests.heard_of(task)
            self.duty.manifest_heard(task)
            self._shard.hear(manifest.shards)

    def _handle_moved(self) -> None:
        """The next connection is of another shard, and another life to whoever hears of the last one."""
        self.identity.boot = self.database.boot
        self._enrolment.begin_anew()
        self._sign_last_will()
        self.link.filters = self._filters()
        self.sessions.moved()

    def _sign_last_will(self) -> None:
        self.link.last_will = self.identity.state_topic, self._signed_presence(PresenceState.OFFLINE)

    def _handle_not_readable(self, task: str, why: str) -> None:
        if task in self.tasks:
            self.duty.not_readable(task, why)

    def _handle_invitation(self, task: str, invitation: Invitation) -> None:
        if begins_generation(self.database.known_version(task), invitation):
            self.manifests.look(task)
        if invites_to_round(self.database.held_version(task), invitation):
            self.duty.invited(task)

    def _handle_succession(self, successor: VerifyKey) -> None:
        self._keys.receive(successor)

    def _handle_authorities(self, topic: str, authorities: list[bytes]) -> None:
        self._authorities.receive(topic, authorities)

    def _handle_queries(self, task: str, queries: Queries) -> None:
        if task in self.tasks:
            self.asked(task, queries)

    def _handle_roster(self, task: str, roster: Roster) -> None:
        self.neighbours.take_roster(task, roster)

    def _handle_new_key(self) -> None:
        """What the new key signed before was refused: ask for authorities, manifests and receipts again."""
        self._authorities.ask_again()
        self.sessions.key_changed()
        self._presence.publish_again()
        self.postbox.send_all()

    def _handle_chunk(self, wanted: str | PackedWeights, number: int, chunk: BlobChunk) -> None:
        self._fetcher.receive_chunk(wanted, number, chunk)

    def _handle_receipt(self, receipt: Receipt) -> None:
        is_ours = self.postbox.receive(receipt) or self._enrolment.receive(receipt)
        if not self._answers.take(receipt, is_ours=is_ours):
            return
        if must_enrol_again(receipt):
            self._enrolment.enrol_again()
        if receipt.outcome is Outcome.REJECTED and not self.database.is_enrolled():
            self.duty.not_enrolled(f"{receipt.reason}: {receipt.detail}")
        self._follow_boots(receipt)
        self.duty.retry_deferred_trigger()
        if is_ours and receipt.outcome is Outcome.ACCEPTED:
            self._name.note()

    def _follow_boots(self, receipt: Receipt) -> None:
        is_for_newest = self._answers.is_for_newest(receipt)
        if receipt.newest_boot > MAX_BOOT:
            logger.warning(log_line("receipt_number_ignored", newest_boot=receipt.newest_boot))
        elif must_continue_boots(receipt, self.identity.boot, is_for_newest=is_for_newest):
            logger.warning(log_line("state_lost", boot=self.identity.boot, newest_boot=receipt.newest_boot))
            self.identity.boot = self.database.continue_boots(receipt.newest_boot)
            self._sign_last_will()
            self._presence.publish_again()
