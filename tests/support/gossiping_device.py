"""A device that learns among neighbours, without a worker's process: shipped gossip, database and link, on a broker."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from bundle_runtime.bundle import Bundle
from edge_agent.core.gossip.state import PeerState, read_state
from edge_agent.core.version_choice import KnownVersion
from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.connection.link import Link
from edge_agent.shell.gossiping.gossip import Gossip
from edge_agent.shell.storage.device_database import DeviceDatabase
from edge_agent.shell.versions.version_follower import ReadyVersion
from edge_agent.training.gossip import gossip_round
from edge_agent.worker.contract import GossipRound, TrainingJob, TrainingResult, Withheld
from fleet_host.broker_settings import BrokerSettings
from fleet_protocol import topics
from fleet_protocol.codec import encode_update, read_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.kinds import Member, Roster
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.update_plan import WHOLE_UPDATES
from tests.support.broker import Address
from tests.support.bundles import TASK
from tests.support.device import SigningDevice
from tests.support.fleet import FLEET
from tests.support.waiting import DEADLINE_SECONDS

BUNDLE_HASH = "0f" * 32
NAMES = ("attic", "barn", "cellar", "den")


def roster_of(devices: Sequence[SigningDevice], number: int = 1, *, bundle: str = BUNDLE_HASH) -> Roster:
    """A ring of them."""
    members = tuple(Member(each.name, bytes(each.key.verify_key)) for each in devices)
    return Roster(1, number, bundle, "ring", "mean", 0, members)


class GossipingDevice:
    """Its files are in `folder`. Its rounds learn a step that its name draws."""

    def __init__(self, folder: Path, device: SigningDevice, bundle: Bundle, broker: Address) -> None:
        self.name, self._folder, self._device, self._broker = device.name, folder, device, broker
        self.task = bundle.description
        self._begun = read_weights(bundle.weights, self.task.parameters)
        self._random = np.random.default_rng(list(device.name.encode()))
        self.looked: list[str] = []

    def description(self, task: str) -> TaskDescription:
        """In the place of a `VersionFollower`."""
        assert task == TASK
        return self.task

    async def fetch_description(self, task: str) -> None:
        """It is here."""

    async def ready_version(self, task: str) -> ReadyVersion:
        """All files are here."""
        return ReadyVersion(0, BUNDLE_HASH, self.task, {}, self._folder / "weights")

    @asynccontextmanager
    async def on(self) -> AsyncIterator["GossipingDevice"]:
        """It runs, and is killed at the end of the block."""
        self._folder.mkdir(exist_ok=True)
        self.database = DeviceDatabase(self._folder / "agent.db")
        self.database.set_known_version(TASK, KnownVersion(0, BUNDLE_HASH, "00", 1))
        self.identity: Identity = self._device.identity
        self.identity.boot = self.database.boot
        link = Link(
            BrokerSettings(self._broker.host, self._broker.port, keepalive_seconds=5),
            f"device-{self.name}",
            last_will=(self.identity.state_topic, b"gone"),
            on_connected=self._connected,
            handle=self._handle,
            filters=[],
            maximum_message_bytes=500,
        )
        self.link, self.listens = link, asyncio.Event()
        self.gossip = Gossip(
            FLEET,
            [TASK],
            self.identity,
            self.database,
            self,  # type: ignore[arg-type]
            link=link,
            look=self.looked.append,
        )
        running = asyncio.create_task(link.run())
        try:
            await self.until(lambda: link.connected, "it is connected")
            yield self
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            self.database.close()

    async def _connected(self) -> None:
        await self.gossip.keep()

    def _handle(self, topic: str, data: bytes) -> None:
        self.gossip.hear(topic, data)

    async def follow(self, roster: Roster) -> None:
        """A roster has come, and those whom it names are heard."""
        self.gossip.take_roster(TASK, roster)
        await self.hears()

    async def hears(self) -> None:
        """The broker has taken its subscriptions."""
        gossip = self.gossip._tasks[TASK]
        wanted = {topics.gossip(FLEET, TASK, name) for name in gossip.talk.neighbours}
        await self.until(lambda: wanted <= self.gossip._subscribed, "it has subscribed")
        await self.link.subscribe("edgeflock/v1/nothing")  # in order: what was asked for before is there

    async def round(self, *, scale: float = 1.0) -> GossipRound:
        """Its worker computes one, and it is committed."""
        step = (scale * self._random.standard_normal(self.task.parameter_count)).astype(np.float32)

        def train(_task: TaskDescription, _model: FloatVector) -> TrainingResult | Withheld:
            packed = encode_update(step, self.task.shapes, WHOLE_UPDATES, self._random).packed
            return TrainingResult(packed, b"", samples=8, steps=1, trained_through=8, loss=0.5, epochs=1.0)

        gossip = self.gossip.job(TASK, BUNDLE_HASH)
        life = 1 + int(self._random.integers(2**32))
        job = TrainingJob(self.task, "onnx-step", {}, "", "", b"", [], 0, life, 1, 0, 0, 0, gossip=gossip)
        ended = gossip_round(job, gossip, self._begun, train)
        assert self.gossip.commit(TASK, BUNDLE_HASH, ended)
        return ended

    async def round_is_refused(self, why: str) -> None:
        """Nothing is trained now, for that reason."""
        self.gossip._follow_tasks()
        self.gossip._news.set()
        assert why in self.gossip.status[TASK].why_not

    @property
    def state(self) -> PeerState:
        """As it is stored."""
        state = read_state(self.database.gossip_states.read(TASK, BUNDLE_HASH), self.task.parameter_count)
        assert state is not None
        return state

    def known(self, neighbour: str) -> int:
        """Up to which change it knows a neighbour, with what waits."""
        return self.gossip._tasks[TASK].talk._waiting.reached(neighbour).number

    @property
    def refused(self) -> dict[str, int]:
        """What came and was not taken, by reason."""
        return dict(self.gossip._tasks[TASK].refused)

    async def until(self, condition, what: str) -> None:
        """Wait for something that other tasks of the loop do."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():  # noqa: ASYNC110 - whatever the test waits for
                await asyncio.sleep(0.01)
        assert condition(), what
