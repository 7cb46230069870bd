"""The agent: wires samples, rounds, postbox and link together, and passes each message on."""

import asyncio
import logging

from edge_agent.configuration import AgentConfiguration
from edge_agent.core.boot_numbers import must_continue_boots
from edge_agent.core.enrolment import must_enrol_again
from edge_agent.core.outbox import OutboxRow
from edge_agent.core.triggers import Condition
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
from edge_agent.shell.host import machine
from edge_agent.shell.host.local_events import LocalEvents
from edge_agent.shell.learning.round_training import RoundTraining
from edge_agent.shell.learning.rounds import Rounds
from edge_agent.shell.local_side import LocalSide
from edge_agent.shell.signs_of_life import SignsOfLife
from edge_agent.shell.state_folder import open_state
from edge_agent.shell.versions.fetcher import Fetcher
from edge_agent.shell.versions.manifest_listener import ManifestListener
from edge_agent.shell.versions.version_follower import VersionFollower
from edge_agent.sources.unix_socket import Status
from fleet_host.log_lines import log_line
from fleet_host.service_manager import this_service_manager
from fleet_protocol import topics
from fleet_protocol.broker_accounts import client_identifier
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import VerifyKey, write_verify_key
from fleet_protocol.kinds import (
    BLOB_REQUEST,
    ENROLMENT,
    FROM_COORDINATOR,
    KINDS,
    WEIGHTS_REQUEST,
    BlobChunk,
    BlobRequest,
    Enrolment,
    Invitation,
    Manifest,
    Outcome,
    Presence,
    PresenceState,
    Receipt,
    WeightsRequest,
    encode_payload,
)
from fleet_protocol.limits import MAX_BOOT
from fleet_protocol.topics import PackedWeights

logger = logging.getLogger(__name__)


class Agent:
    """One device of one fleet. `run` lasts until cancelled; nothing is lost then, nor when the process is killed.

    Raises:
        ConfigurationError: the state folder or a database in it can't be used, or is another device's.
    """

    def __init__(self, configuration: AgentConfiguration, identity: Identity, software: str) -> None:
        self._configuration = configuration
        self._identity = identity
        self._software = software
        self._tasks = [task.name for task in configuration.tasks]
        self._database, self._samples, cache = open_state(configuration)
        identity.boot = self._database.boot
        pinned = PinnedKeys(configuration.state_folder, identity.coordinator)
        identity.coordinator = pinned.newest
        self._name = EnrolledName(configuration.state_folder, configuration.device, identity.public_key)
        self._name.check()
        self._answers = Answers(configuration, self._database.has_settled)
        inbox = Inbox(
            configuration.fleet,
            identity,
            receipt=self._handle_receipt,
            manifest=self._handle_manifest,
            not_readable=self._handle_not_readable,
            invitation=self._handle_invitation,
            succession=self._handle_succession,
            authorities=self._handle_authorities,
            chunk=self._handle_chunk,
        )
        self._link = Link(
            configuration.broker,
            client_identifier(configuration.fleet, configuration.device),
            last_will=(identity.state_topic, self._signed_presence(PresenceState.OFFLINE)),
            on_connected=self._on_connected,
            handle=inbox.handle,
            filters=[identity.down_topic, *(topics.invitation(configuration.fleet, task) for task in self._tasks)],
            maximum_message_bytes=max(kind.max_bytes for kind in KINDS.values() if kind.leaf in FROM_COORDINATOR),
        )
        authorities = pinned_authorities(configuration.state_folder, configuration.broker)
        if authorities is not None:
            self._link.trust(authorities.file)
        self._authorities = AuthorityFollower(configuration.fleet, authorities, self._link)
        self._keys = KeyFollower(pinned, identity, self._link, followed=self._handle_new_key)
        self._presence = PresenceKeeper(self._publish_presence, lambda: self._manifests.lacks_any)
        self._manifests = ManifestListener(
            configuration.fleet,
            self._tasks,
            self._link,
            is_needed=self._waits_for_version,
            awaited=self._presence.manifest_awaited,
        )
        self._fetcher = Fetcher(configuration.fleet, self._link.listening_to, self._request)
        self._versions = VersionFollower(
            self._database,
            cache,
            self._fetcher,
            configuration.device,
            engine=configuration.worker.engine,
            not_readable=self._handle_not_readable,
        )
        self._postbox = Postbox(self._database, identity.sign_row, self._publish_answered, answered=self._handle_answer)
        training = RoundTraining(
            configuration.worker,
            self._database,
            self._samples,
            self._versions,
            address=identity.address,
            sign=identity.sign_row,
        )
        self._rounds = Rounds(
            configuration,
            self._database,
            self._samples,
            self._versions,
            training,
            spooled=self._postbox.notify,
            link=self._link,
            manifests=self._manifests,
        )
        self._enrolment = EnrolmentKeeper(
            self._database,
            sign=self._sign_enrolment,
            publish=self._publish_answered,
            while_enrolled=self._while_enrolled,
        )
        self._local = LocalSide(
            configuration,
            self._samples,
            self._versions,
            self._rounds,
            status=self._status,
            take_manifest=self._manifests.take_to_predict,
            judge=training.drop_unfit_samples,
        )
        self._signs = SignsOfLife(
            this_service_manager(), round_ends_by=lambda: training.ends_by, words=self._status_line
        )
        self._events = LocalEvents([(task.name, task.trigger) for task in configuration.tasks], self._rounds.note)

    async def run(self) -> None:
        """Serve samples, keep the link, train when woken; until cancelled.

        Raises:
            ConfigurationError: the card has damaged `agent.db` meanwhile; what is lost, and what to do.
        """
        for words in machine.missing(self._configuration.guards):
            logger.warning(
                log_line("sensor_missing", guard=words, remedy="name one in [guards], or leave that limit out")
            )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._local.run())
                group.create_task(self._link.run())
                group.create_task(self._rounds.run())
                group.create_task(self._events.run())
                group.create_task(self._signs.run(self._local.listens))
                group.create_task(self._end_at_damage())
        except Exception:
            if self._database.damage is None:
                raise
            raise ConfigurationError(self._database.damage) from None
        finally:
            self._samples.close()
            self._database.close()

    def train_now(self) -> None:
        """Somebody asks for a round of every task."""
        self._rounds.train_now()

    async def _end_at_damage(self) -> None:
        """Whoever met the damage, and whatever became of the error there."""
        damaged = asyncio.Event()
        self._database.call_at_damage(damaged.set)
        if self._database.damage is None:
            await damaged.wait()
        raise ConfigurationError(self._database.damage)

    async def _on_connected(self) -> None:
        """Enrol and deliver, for as long as the connection lasts."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keys.keep())
            group.create_task(self._authorities.keep())
            group.create_task(self._manifests.keep())
            group.create_task(self._enrolment.keep())
            group.create_task(self._postbox.deliver())

    async def _while_enrolled(self) -> None:
        """Publish the presence, which the coordinator takes from enrolled devices only."""
        self._postbox.send_all()
        self._rounds.enrolled()
        await self._presence.keep()

    async def _publish_up(self, signed: bytes) -> None:
        await self._link.publish(self._identity.up_topic, signed)

    async def _publish_answered(self, signed: bytes) -> None:
        """Publish what the coordinator answers with a receipt."""
        await self._publish_up(signed)
        self._answers.await_one()

    async def _publish_presence(self) -> None:
        signed = self._signed_presence(PresenceState.ONLINE)
        self._answers.signed(signed)
        await self._link.publish(self._identity.state_topic, signed, retain=True)

    async def _request(self, request: BlobRequest | WeightsRequest, task: str) -> None:
        kind = BLOB_REQUEST if isinstance(request, BlobRequest) else WEIGHTS_REQUEST
        known = self._database.known_version(task)
        signed = self._identity.sign_control(kind, encode_payload(request), task, known.generation if known else 0)
        self._answers.signed(signed)
        await self._publish_up(signed)

    def _signed_presence(self, state: PresenceState) -> bytes:
        return self._identity.sign_presence(encode_payload(Presence(state, self._identity.boot)))

    def _sign_enrolment(self) -> bytes:
        enrolment = Enrolment(
            public_key=self._identity.public_key,
            profile=self._configuration.profile_name,
            software=self._software,
            tasks=self._tasks,
        )
        signed = self._identity.sign_control(ENROLMENT, encode_payload(enrolment))
        self._answers.signed(signed)
        return signed

    def _waits_for_version(self, task: str) -> bool:
        return self._rounds.waits_for_version(task)

    def _handle_manifest(self, task: str, manifest: Manifest) -> None:
        if self._versions.receive_manifest(task, manifest):
            self._rounds.manifest_changed(task)
        known = self._database.known_version(task)
        if known is not None and known == known_from(manifest):
            self._manifests.heard_of(task)
            self._rounds.manifest_heard(task)

    def _handle_not_readable(self, task: str, why: str) -> None:
        if task in self._tasks:
            self._rounds.not_readable(task, why)

    def _handle_invitation(self, task: str, invitation: Invitation) -> None:
        if begins_generation(self._database.known_version(task), invitation):
            self._manifests.look(task)
        if invites_to_round(self._database.held_version(task), invitation):
            self._rounds.note(task, Condition.INVITED)

    def _handle_succession(self, successor: VerifyKey) -> None:
        self._keys.receive(successor)

    def _handle_authorities(self, topic: str, authorities: list[bytes]) -> None:
        self._authorities.receive(topic, authorities)

    def _handle_new_key(self) -> None:
        """What the new key signed before was refused: ask for authorities, manifests and receipts again."""
        self._authorities.ask_again()
        self._presence.publish_again()
        self._postbox.send_all()

    def _handle_chunk(self, wanted: str | PackedWeights, number: int, chunk: BlobChunk) -> None:
        self._fetcher.receive_chunk(wanted, number, chunk)

    def _handle_receipt(self, receipt: Receipt) -> None:
        is_ours = self._postbox.receive(receipt) or self._enrolment.receive(receipt)
        if not self._answers.take(receipt, is_ours=is_ours):
            return
        if must_enrol_again(receipt):
            self._enrolment.enrol_again()
        if receipt.outcome is Outcome.REJECTED and not self._database.is_enrolled():
            self._rounds.not_enrolled(f"{receipt.reason}: {receipt.detail}")
        self._follow_boots(receipt)
        self._rounds.retry_deferred_trigger()
        if is_ours and receipt.outcome is Outcome.ACCEPTED:
            self._name.note()

    def _follow_boots(self, receipt: Receipt) -> None:
        is_for_newest = self._answers.is_for_newest(receipt)
        if receipt.newest_boot > MAX_BOOT:
            logger.warning(log_line("receipt_number_ignored", newest_boot=receipt.newest_boot))
        elif must_continue_boots(receipt, self._identity.boot, is_for_newest=is_for_newest):
            logger.warning(log_line("state_lost", boot=self._identity.boot, newest_boot=receipt.newest_boot))
            self._identity.boot = self._database.continue_boots(receipt.newest_boot)
            self._link.last_will = self._identity.state_topic, self._signed_presence(PresenceState.OFFLINE)
            self._presence.publish_again()

    def _handle_answer(self, row: OutboxRow, receipt: Receipt) -> None:
        self._rounds.answered(row, receipt)

    def _status_line(self) -> str:
        link = "connected" if self._link.connected else "not connected to the broker"
        return f"{self._rounds.state.value}, {link}, {self._database.waiting()} updates wait for a receipt"

    def _status(self) -> Status:
        known = {task: self._database.known_version(task) for task in self._tasks}
        return Status(
            device=self._configuration.device,
            state=self._rounds.state.value,
            connected=self._link.connected,
            boot=self._identity.boot,
            versions={task: version.version for task, version in known.items() if version},
            samples={task: self._samples.count(task) for task in self._tasks},
            new_samples=self._rounds.new_samples,
            waiting_updates=self._database.waiting(),
            accepted_updates=self._postbox.accepted,
            rejected_updates=self._postbox.rejected,
            withheld_updates=self._rounds.withheld,
            progress=self._rounds.progress,
            sources=self._local.sources,
            series=self._local.series,
            tasks=self._rounds.task_states,
            waiting_bytes=self._database.waiting_bytes(),
            merged_updates=self._database.merged_back,
            coordinator_key=write_verify_key(self._identity.coordinator),
            dropped={task: dropped for task in self._tasks if (dropped := self._samples.dropped(task))},
        )
