"""The shipped agent, whole, in virtual time: fed with samples, cut off its power, wiped, watched."""

import asyncio
import random
import shutil
import sqlite3
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import count
from unittest.mock import patch

import msgspec

from edge_agent.configuration import AgentConfiguration
from edge_agent.core.outbox import OutboxRow
from edge_agent.shell.agent import Agent
from edge_agent.shell.connection.identity import Identity
from edge_agent.sources.plugins import SHIPPED
from edge_agent.sources.source import ReadingIntake, SourcePlugin
from fleet_protocol.envelope import digest
from fleet_protocol.keys import SigningKey, VerifyKey, write_verify_key
from fleet_protocol.limits import KIB
from fleet_protocol.sample_line import read_sample
from tests.month.books import SampleBook, Stored
from tests.month.clock import MonthClock
from tests.month.network import Network
from tests.month.storage import Card, MonthCache, MonthDatabase, MonthStore
from tests.month.worker import MonthWorker

SOURCE = "month"
"""The kind of source that brings samples here."""
SYSTEMD_SECONDS = 10.0
"""Until an agent that has ended is started again."""
BASE = 1000
"""A sample's number stands in its first inputs, as digits to this base, each as a thousandth."""
CLASSES = 4
ROOM = KIB
"""Takes the place of a MiB in a device's limits, so that a month reaches them."""


class TellingIdentity(Identity):
    """Tells a ledger what it signs."""

    def __init__(self, card: Card, *arguments, **named) -> None:
        super().__init__(*arguments, **named)
        self._card = card

    def sign_row(self, row: OutboxRow) -> bytes:
        """See `Identity`."""
        envelope = super().sign_row(row)
        ledger = self._card.ledger
        ledger.contents[row.payload] = self._card.pieces_in(row.payload)
        ledger.sign(row.sequence, digest(envelope), row.payload)
        return envelope


class MonthDevice:
    """What is in its folder survives `cut_power`, its key alone a `wipe`."""

    def __init__(
        self,
        configuration: AgentConfiguration,
        coordinator_key: VerifyKey,
        network: Network,
        clock: MonthClock,
        *,
        pieces: "count[int]",
        draw: random.Random,
    ) -> None:
        self.name = configuration.device
        self.configuration = configuration
        self.card = Card()
        self.worker = MonthWorker(self.card, draw, pieces, lambda: clock.now)
        self.power_cuts = 0
        self.hindered: list[tuple[float, float]] = []
        """When it had no link for days or its card was full, in seconds since the start."""
        self.failures: list[str] = []
        """Why its agent has ended by itself."""
        self._coordinator_key = write_verify_key(coordinator_key)
        self._key = SigningKey(self.name.encode().ljust(32, b"."))
        self._network = network
        self._draw = draw
        self._numbers = count()
        self._intakes: dict[str, ReadingIntake] = {}
        self._running: asyncio.Task[None] | None = None
        self._former_books: list[SampleBook] = []
        self.books = self._new_books()

    def _new_books(self) -> dict[str, SampleBook]:
        store = self.configuration.store
        sample_bytes = 8 * 4
        most = min(store.maximum_samples, store.maximum_mib * ROOM // sample_bytes)
        return {task.name: SampleBook(store.retention, most) for task in self.configuration.tasks}

    async def start(self) -> None:
        """Its power comes."""
        self._stopping = False
        self._running = asyncio.create_task(self._keep_running())
        await asyncio.sleep(0)

    async def cut_power(self) -> None:
        """Its power goes: the folder stays as it is at this moment, whatever a process in it would still do."""
        self.power_cuts += 1
        state = self.configuration.state_folder
        at_this_moment = state.with_name("at this moment")
        shutil.copytree(state, at_this_moment)
        await self.stop()
        shutil.rmtree(state)
        at_this_moment.rename(state)

    async def cut_power_and_start(self) -> None:
        """Its power goes, and comes back."""
        await self.cut_power()
        await self.start()

    async def stop(self) -> None:
        """It ends; its link has gone before."""
        assert self._running is not None
        self._network.set_reachable(self.name, False)
        self._stopping = True
        self._running.cancel()
        await asyncio.wait({self._running})
        self._intakes.clear()

    async def wipe(self) -> None:
        """It gets an empty card."""
        await self.stop()
        shutil.rmtree(self.configuration.state_folder)
        self.card.ledger.wipe()
        self.worker.seen.clear()
        self._network.wire.forget(self.name)
        self._former_books += self.books.values()
        self.books = self._new_books()
        await self.start()

    @property
    def all_books(self) -> list[SampleBook]:
        """Those of cards that were taken away, too."""
        return [*self._former_books, *self.books.values()]

    def feed(self, task: str) -> None:
        """A reading comes, if anybody is there to take it."""
        intake = self._intakes.get(task)
        if intake is None:
            return
        number, label = next(self._numbers), self._draw.choice((0, 0, 0, 0, 1, 1, 2, 3))
        digits = [number % BASE / BASE, number // BASE % BASE / BASE]
        reason = intake.take_document({"inputs": [*digits, 0, 0, 0, 0, 0, 0], "label": label})
        if reason is None:
            self.books[task].accepted.append((number, label))
        else:
            self.books[task].refused[reason] += 1

    def check_samples(self) -> None:
        """See `SampleBook`; and no sample was passed over by the rounds."""
        with closing(sqlite3.connect(self.configuration.state_folder / "samples.db")) as connection:
            for task, book in self.books.items():
                query = "SELECT id, inputs, label FROM samples WHERE task = ? ORDER BY id"
                rows = connection.execute(query, (task,)).fetchall()
                waiting = connection.execute("SELECT sample FROM unjudged WHERE task = ? ORDER BY id", (task,))
                book.check(_stored(rows), _waiting([written for (written,) in waiting]))
                assert self.card.database is not None
                through = self.card.database.trained_through(task)
                passed_over = {number for number, *_ in rows if number <= through} - self.worker.seen
                assert not passed_over, (
                    f"{len(passed_over)} samples of {self.name} count as trained, and no round saw them"
                )

    async def _keep_running(self) -> None:
        """As systemd does."""
        while True:
            identity = TellingIdentity(
                self.card,
                self.configuration.fleet,
                self.configuration.shard,
                self.name,
                self._key,
                self._coordinator_key,
                encrypt_updates=self.configuration.encrypt_updates,
            )
            try:
                with self._own_machine():
                    agent = Agent(self.configuration, identity, "month 1.0")
                await agent.run()
            except Exception as error:
                self.failures.append(f"{error!r} while it was stopped: {self._stopping}")
                if self._stopping:
                    return
            await asyncio.sleep(SYSTEMD_SECONDS)

    @contextmanager
    def _own_machine(self) -> Iterator[None]:
        """Whatever an agent makes within the block is this device's: its card, its child, its source."""

        async def bring(_settings: msgspec.Struct, intake: ReadingIntake) -> None:
            self._intakes[intake.form.task] = intake
            await asyncio.Event().wait()

        source = SourcePlugin(msgspec.Struct, bring)
        card = self.card
        with ExitStack() as patched:
            for target, replacement in {
                "edge_agent.shell.state_folder.DeviceDatabase": lambda *given: MonthDatabase(card, *given),
                "edge_agent.shell.state_folder.SampleStore": lambda *given, **named: MonthStore(card, *given, **named),
                "edge_agent.shell.state_folder.BlobCache": lambda *given: MonthCache(card, *given),
                "edge_agent.shell.state_folder.MIB": ROOM,
                "edge_agent.shell.learning.round_training.TrainingWorker": lambda _settings: self.worker,
                "edge_agent.sources.plugins.SHIPPED": {**SHIPPED, SOURCE: source},
            }.items():
                patched.enter_context(patch(target, replacement))
            yield


def _stored(rows: list[tuple[int, bytes, int]]) -> Stored:
    return {_number(array("f", inputs)): label for _, inputs, label in rows}


def _waiting(written: list[bytes]) -> Stored:
    return {_number(sample.inputs): sample.label for sample in map(read_sample, written)}


def _number(inputs: Sequence[float]) -> int:
    """Of a sample, from its inputs."""
    return round(inputs[0] * BASE) + BASE * round(inputs[1] * BASE)
