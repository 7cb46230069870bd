"""The agent: waits for a trigger, asks the guards, trains in a child process, spools, and lets the postbox deliver."""

import asyncio
import logging
import sqlite3

from edge_agent import machine
from edge_agent.blob_cache import BlobCache
from edge_agent.configuration import AgentConfiguration, TaskSettings
from edge_agent.device_database import DeviceDatabase, SpooledRound
from edge_agent.guards import Readings, refusal
from edge_agent.identity import Identity
from edge_agent.lifecycle import Event, Lifecycle
from edge_agent.link import Link, LinkDownError
from edge_agent.postbox import Postbox
from edge_agent.sample_gate import SampleGate, Status
from edge_agent.sample_store import SampleStore
from edge_agent.training.job import TrainingFailure, TrainingJob, TrainingResult
from edge_agent.training.supervisor import train_in_child
from edge_agent.version_follower import ReadyVersion, VersionFollower, VersionUnavailableError
from fleet_protocol import topics
from fleet_protocol.envelope import Kind, digest
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.limits import MAX_CONTROL_BYTES, MAX_SEALED_CHUNK_BYTES
from fleet_protocol.messages import (
    BlobChunk,
    BlobRequest,
    Enrolment,
    Manifest,
    Outcome,
    Presence,
    PresenceState,
    Receipt,
    Update,
    encode_payload,
)

log = logging.getLogger(__name__)


class Agent:
    """One device of one fleet. `run` returns when it is cancelled; nothing is lost then, nor when it is killed."""

    def __init__(self, configuration: AgentConfiguration, identity: Identity, software: str) -> None:
        self._configuration = configuration
        self._identity = identity
        self._software = software
        self._task_names = [task.name for task in configuration.tasks]
        configuration.state_folder.mkdir(parents=True, exist_ok=True)
        self._database = DeviceDatabase(configuration.state_folder / "agent.db")
        self._samples = SampleStore(configuration.state_folder / "samples.db", configuration.store.maximum_samples)
        identity.boot = self._database.boot
        self._lifecycle = Lifecycle()
        self._wake = asyncio.Event()
        self._recheck: asyncio.TimerHandle | None = None
        self._enrolment_digest = b""
        self._pending = {task: self._count_pending(task) for task in self._task_names}
        self._link = Link(
            configuration.broker,
            f"{configuration.fleet}-{configuration.device}",
            last_will=(identity.state_topic, self._presence(PresenceState.OFFLINE)),
            greet=self._greet,
            handle=self._handle,
            filters=[
                identity.down_topic,
                *(topics.manifest(configuration.fleet, task) for task in self._task_names),
            ],
        )
        self._postbox = Postbox(self._database, identity.seal_update, self._publish_up)
        self._versions = VersionFollower(
            configuration.fleet,
            self._database,
            BlobCache(configuration.state_folder / "blobs"),
            listening_to=self._link.listening_to,
            request=self._request_blob,
        )
        self._gate = SampleGate(
            configuration.sample_socket,
            self._samples,
            frozenset(self._task_names),
            describe=self._versions.description,
            arrived=self._sample_arrived,
            status=self._status,
        )

    async def run(self) -> None:
        """Serve samples, keep the link, train when woken; until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._gate.serve())
                group.create_task(self._link.run())
                group.create_task(self._train_when_woken())
        finally:
            self._samples.close()
            self._database.close()

    async def _train_when_woken(self) -> None:
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            for task in self._configuration.tasks:
                while self._is_due(task) and await self._run_round(task):
                    pass

    def _is_due(self, task: TaskSettings) -> bool:
        return self._pending[task.name] >= task.trigger.new_samples

    async def _run_round(self, task: TaskSettings) -> bool:
        """One pass through the life cycle; whether an update was spooled."""
        self._lifecycle.advance(Event.TRIGGER_FIRED)
        if refused := refusal(self._configuration.guards, self._readings(task.name)):
            log.info("event=guard_refused task=%s reason=%r", task.name, refused)
            self._lifecycle.advance(Event.GUARD_REFUSED)
            self._wake_later()
            return False
        self._lifecycle.advance(Event.GUARDS_AGREED)
        try:
            version = await self._versions.ready_version(task.name)
        except (VersionUnavailableError, LinkDownError) as error:
            log.info("event=no_version task=%s reason=%r", task.name, str(error))
            self._lifecycle.advance(Event.VERSION_UNAVAILABLE)
            self._wake_later()
            return False
        self._lifecycle.advance(Event.VERSION_READY)
        try:
            await self._train(task.name, version)
        except (TrainingFailedError, sqlite3.Error, OSError) as error:
            log.error("event=round_dropped task=%s version=%d error=%r", task.name, version.number, str(error))
            self._lifecycle.advance(Event.ROUND_FAILED)
            self._wake_later()
            return False
        self._lifecycle.advance(Event.ROUND_SPOOLED)
        self._postbox.notify()
        return True

    async def _train(self, task: str, version: ReadyVersion) -> None:
        dropped = self._samples.drop_misfits(version.description)
        if dropped:
            log.warning("event=samples_dropped task=%s count=%d reason='do not fit the schema'", task, dropped)
        memory = self._database.memory(task, version.bundle)
        settings = self._configuration.worker
        job = TrainingJob(
            description=version.description,
            train_graph=str(version.train_graph),
            weights=str(version.weights),
            sample_store=str(self._samples.path),
            residual=memory.residual,
            returned=[packed for _, packed in memory.returned],
            seed=memory.rounds,
            threads=settings.threads,
            nice=settings.nice,
            memory_limit_mib=settings.memory_limit_mib,
        )
        verdict = await train_in_child(job, settings)
        if isinstance(verdict, TrainingFailure):
            raise TrainingFailedError(verdict.error)
        row = self._database.spool(
            SpooledRound(
                task=task,
                bundle=version.bundle,
                base_version=version.number,
                trained_through=verdict.trained_through,
                packed=verdict.packed,
                payload=_update_payload(verdict),
                residual=verdict.residual,
                returned=tuple(sequence for sequence, _ in memory.returned),
            ),
            self._identity.seal_update,
        )
        self._pending[task] = self._count_pending(task)
        self._versions.forget_unused(self._task_names)
        log.info(
            "event=update_spooled task=%s version=%d sequence=%d bytes=%d loss=%.4f",
            task,
            version.number,
            row.sequence,
            len(row.envelope),
            verdict.loss,
        )

    def _readings(self, task: str) -> Readings:
        return Readings(
            stored_samples=self._samples.count(task),
            waiting_updates=self._database.waiting(),
            temperature_celsius=machine.temperature_celsius(),
            battery_percent=machine.battery_percent(),
            free_memory_mib=machine.free_memory_mib(),
        )

    def _wake_later(self) -> None:
        """A trigger has fired and could not be served: look again after a while, or when something changes."""
        if self._recheck is None or self._recheck.when() <= asyncio.get_running_loop().time():
            self._recheck = asyncio.get_running_loop().call_later(
                self._configuration.guards.recheck_seconds, self._wake.set
            )

    def _sample_arrived(self, task: str) -> None:
        self._pending[task] += 1
        if any(self._is_due(settings) for settings in self._configuration.tasks if settings.name == task):
            self._wake.set()

    def _count_pending(self, task: str) -> int:
        return self._samples.count_after(task, self._database.trained_through(task))

    async def _greet(self) -> None:
        """What a new connection begins with; then the postbox has it for as long as it lasts."""
        await self._link.publish(self._identity.state_topic, self._presence(PresenceState.ONLINE), retain=True)
        if not self._database.is_enrolled():
            await self._enrol()
        self._wake.set()
        await self._postbox.deliver()

    async def _enrol(self) -> None:
        enrolment = Enrolment(
            public_key=self._identity.public_key,
            profile=self._configuration.profile,
            software=self._software,
            tasks=self._task_names,
        )
        sealed = self._identity.seal_control(Kind.ENROLMENT, encode_payload(enrolment))
        self._enrolment_digest = digest(sealed)
        await self._publish_up(sealed)

    async def _publish_up(self, sealed: bytes) -> None:
        await self._link.publish(self._identity.up_topic, sealed)

    async def _request_blob(self, request: BlobRequest) -> None:
        await self._publish_up(self._identity.seal_control(Kind.BLOB_REQUEST, encode_payload(request)))

    def _presence(self, state: PresenceState) -> bytes:
        return self._identity.seal_presence(encode_payload(Presence(state, self._identity.boot)))

    def _handle(self, topic: str, data: bytes) -> None:
        """Whatever comes from the broker: only what the coordinator's pinned key signed for this topic counts."""
        try:
            self._handle_verified(topic, data)
        except ProtocolError as error:
            log.warning("event=message_refused topic=%s error=%r", topic, str(error))
        except (sqlite3.Error, OSError) as error:
            log.error("event=message_not_handled topic=%s error=%r", topic, str(error))

    def _handle_verified(self, topic: str, data: bytes) -> None:
        limit = MAX_SEALED_CHUNK_BYTES if "/blob/" in topic else MAX_CONTROL_BYTES
        payload, task = self._identity.open_from_coordinator(topic, data, limit)
        match payload:
            case Receipt():
                self._handle_receipt(payload)
            case Manifest() if topic == topics.manifest(self._configuration.fleet, task):
                if self._versions.hear_manifest(task, payload):
                    log.info("event=version_announced task=%s version=%d", task, payload.version)
                    self._wake.set()
            case BlobChunk():
                self._versions.hear_chunk(*topics.blob_of(topic), payload)
            case _:
                raise ProtocolError(Reason.MALFORMED, f"a {type(payload).__name__} has no place on this topic")

    def _handle_receipt(self, receipt: Receipt) -> None:
        if self._postbox.receive(receipt):
            self._wake.set()
        elif receipt.digest == self._enrolment_digest:
            accepted = receipt.outcome is Outcome.ACCEPTED
            log.info("event=enrolment outcome=%s detail=%r", receipt.outcome.value, receipt.detail)
            if accepted:
                self._database.set_enrolled()

    def _status(self) -> Status:
        known = {task: self._database.known_version(task) for task in self._task_names}
        return Status(
            device=self._configuration.device,
            state=self._lifecycle.state.value,
            connected=self._link.connected,
            boot=self._identity.boot,
            versions={task: version.version for task, version in known.items() if version},
            samples={task: self._samples.count(task) for task in self._task_names},
            waiting_updates=self._database.waiting(),
            accepted_updates=self._postbox.accepted,
            rejected_updates=self._postbox.rejected,
        )


class TrainingFailedError(Exception):
    """The worker reported a failure."""


def _update_payload(result: TrainingResult) -> bytes:
    return encode_payload(Update(result.samples, result.steps, round(result.loss, 3), result.packed))
