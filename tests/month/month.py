"""A fleet's month in virtual time: what happens when, and what must hold of it as it goes and at the end."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from unittest.mock import patch

import msgspec

from tests.month.clock import MonthClock, machine_shows
from tests.month.coordinator import AtOnce, MonthCoordinator
from tests.month.device import ROOM, MonthDevice
from tests.month.fleet import BRIEF, MEMBERS, Member, configuration_of, write_bundles
from tests.month.inspection import (
    HOUR,
    Growth,
    check_conservation,
    check_rest,
    check_room,
    check_rounds,
    longest_without_round,
)
from tests.month.neighbour import Neighbour
from tests.month.network import Network
from tests.support.bench import KEY
from tests.support.bundles import TASK
from tests.support.jumping_clock import run

MINUTE, DAY = 60.0, 86_400.0
START = 1_767_225_600.0
"""2026-01-01, as the wall clock shows at first."""
TWELVE_YEARS = 12 * 366 * DAY
"""Beyond 2038-01-19, where 32 bits end."""

LINK_UP_SECONDS, LINK_DOWN_SECONDS = 6 * MINUTE, 294 * MINUTE
SHORTEST_LINK_SECONDS = 1 * MINUTE
"""In a shorter time a device may not get through, or not get the version that it waits for."""
LONG_OUTAGE_SECONDS = 24 * HOUR
"""By chance: so long a one excuses a device that waits for a version."""
"""On average: it is up for 2 % of the time."""
SAMPLE_SECONDS = 30 * MINUTE
SAMPLES_OF_ONE_OF_BRIEF = 8
MOLESTED_SECONDS = 3 * HOUR
"""On average, between two acts of the neighbour."""
DEAD_CLOCK_BOOTS_SECONDS = 7 * HOUR
"""Between the starts of devices whose clock has no battery, and whose network has no time."""
DARK_FROM, DARK_UNTIL = 8 * DAY, 15 * DAY
"""One device has no link at all. If the last that it heard is that updates from its version are refused, it waits."""
LONGEST_DAY = 30

Action = Callable[[], Awaitable[None]]


class Summary(msgspec.Struct, frozen=True):
    """What a month was: counts over all devices. `growth_bytes` as `Growth` has it, None where it was not measured."""

    seed: int
    samples: int
    samples_dropped: int
    samples_refused: int
    rounds: int
    updates_accepted: int
    updates_taken_back: int
    pieces_lost_with_a_bundle: int
    pieces_lost_with_a_backup: int
    versions: int
    power_cuts: int
    writes_refused: int
    connections: int
    longest_without_round_hours: float
    growth_bytes: int | None


class Month:
    """Two devices or more, and what `seed` lets happen to them. With `measures_memory`, its growth is looked at."""

    def __init__(
        self, folder: Path, seed: int, members: Sequence[Member] = MEMBERS, *, measures_memory: bool = False
    ) -> None:
        self._draw = random.Random(seed)
        self._seed = seed
        self._members = members
        self._clock = MonthClock(START)
        self._network = Network(self._draw)
        self._bundles = write_bundles(folder / "bundles")
        self._folder = folder
        self._growth = Growth() if measures_memory else None
        self._dark: set[str] = set()
        self._off: set[str] = set()
        self._lost_with_backup = 0

    def run(self) -> Summary:
        """Let it pass.

        Raises:
            AssertionError: something that must hold does not.
        """
        with self._machine():
            run(self._pass(), self._clock)
        return self._summary()

    @contextmanager
    def _machine(self) -> Iterator[None]:
        """What is not ours: clocks, sockets, threads; and a MiB is a KiB."""
        state = random.getstate()
        random.seed(self._seed)
        with ExitStack() as patched:
            patched.enter_context(machine_shows(self._clock))
            for target, replacement in {
                "edge_agent.shell.connection.link.BrokerClient": self._network.client,
                "edge_agent.shell.learning.rounds.MIB": ROOM,
                "secrets.randbits": random.getrandbits,
                "secrets.randbelow": random.randrange,
                "broker_coordinator.serving.file_server.ThreadPoolExecutor": lambda *_, **__: AtOnce(),
            }.items():
                patched.enter_context(patch(target, replacement))
            logging.disable(logging.CRITICAL)
            try:
                yield
            finally:
                logging.disable(logging.NOTSET)
                random.setstate(state)

    async def _pass(self) -> None:
        pieces = count(1)
        self._coordinator = MonthCoordinator(
            self._folder, self._clock, self._network, [self._bundles.first, self._bundles.brief]
        )
        self._devices = [
            MonthDevice(
                configuration_of(member, self._folder, KEY.verify_key),
                KEY.verify_key,
                self._network,
                self._clock,
                pieces=pieces,
                draw=self._draw,
            )
            for member in self._members
        ]
        for device in self._devices:
            await device.start()
        living = [self._feed(), self._molest(), *(self._weather(device) for device in self._devices)]
        tasks = [asyncio.create_task(each) for each in living]
        for moment, action in sorted(self._script(), key=lambda planned: planned[0]):
            await asyncio.sleep(moment - self._clock.now)
            await action()
            self._check()
            for task in tasks:
                if task.done():
                    task.result()
        for task in tasks:
            task.cancel()
        await self._rest()

    def _script(self) -> Iterator[tuple[float, Action]]:
        """Moments in seconds since the start, and what happens then."""
        first, *_, last = self._devices
        in_the_dark = self._devices[-2]
        at = self._draw.uniform
        for day in range(LONGEST_DAY - 2):
            yield (day + 0.001) * DAY, self._begin_day
        for device in self._devices:
            for _ in range(8):
                yield at(0.1, 27) * DAY, device.cut_power_and_start
        for _ in range(12):
            yield at(0.1, 27) * DAY, self._restart_coordinator
        yield at(2, 3) * DAY, lambda: self._fill_card(first, 36 * HOUR)
        yield at(15, 17) * DAY, lambda: self._fill_card(first, 30 * HOUR)
        yield at(11, 12) * DAY, lambda: self._fill_coordinators_disk(8 * HOUR)
        yield at(9, 10) * DAY, lambda: self._stop_coordinator(8 * HOUR)
        yield DARK_FROM, lambda: self._darken(in_the_dark, DARK_UNTIL - DARK_FROM)
        yield at(6, 7) * DAY, lambda: self._shift_wall(TWELVE_YEARS, 7 * HOUR)
        yield at(13, 13.5) * DAY, lambda: self._set_wall_to_1970(36 * HOUR)
        yield at(18, 18.9) * DAY, self._put_coordinator_back
        yield at(19, 19.9) * DAY, self._end_brief
        for boot in range(int(3 * DAY // DEAD_CLOCK_BOOTS_SECONDS)):
            yield 20 * DAY + boot * DEAD_CLOCK_BOOTS_SECONDS, self._boot_without_clock
        yield 23 * DAY, self._take_networks_time
        yield at(24, 25) * DAY, self._publish_second
        yield at(26, 27) * DAY, last.wipe

    def _check(self) -> None:
        accepted = self._coordinator.accepted()
        for device in self._devices:
            check_conservation(device, accepted)
            check_room(device)

    async def _begin_day(self) -> None:
        self._coordinator.copy()
        if self._growth and self._clock.now > 5 * DAY:
            self._growth.begin()

    async def _feed(self) -> None:
        while True:
            await asyncio.sleep(self._draw.uniform(0.5, 1.5) * SAMPLE_SECONDS)
            for device in self._devices:
                device.feed(TASK)
                if not self._draw.randrange(SAMPLES_OF_ONE_OF_BRIEF):
                    device.feed(BRIEF)

    async def _molest(self) -> None:
        neighbour = Neighbour(self._network, [device.name for device in self._devices], self._draw)
        while True:
            await asyncio.sleep(self._draw.expovariate(1 / MOLESTED_SECONDS))
            neighbour.act()

    async def _weather(self, device: MonthDevice) -> None:
        down_since = self._clock.now
        while True:
            await asyncio.sleep(self._draw.expovariate(1 / LINK_DOWN_SECONDS))
            if device.name not in self._dark:
                self._network.set_reachable(device.name, True)
            seconds = self._draw.expovariate(1 / LINK_UP_SECONDS)
            if seconds >= SHORTEST_LINK_SECONDS:
                if self._clock.now - down_since > LONG_OUTAGE_SECONDS:
                    device.hindered.append((down_since, self._clock.now))
                down_since = self._clock.now + seconds
            await asyncio.sleep(seconds)
            self._network.set_reachable(device.name, False)

    def _after(self, seconds: float, action: Callable[[], object]) -> None:
        asyncio.get_running_loop().call_later(seconds, action)

    async def _restart_coordinator(self) -> None:
        self._coordinator.start()

    async def _stop_coordinator(self, seconds: float) -> None:
        self._coordinator.kill()
        self._after(seconds, self._coordinator.start)

    async def _fill_card(self, device: MonthDevice, seconds: float) -> None:
        device.card.fill()
        device.hindered.append((self._clock.now, self._clock.now + seconds))
        self._after(seconds, device.card.free)

    async def _fill_coordinators_disk(self, seconds: float) -> None:
        self._coordinator.fill_disk()
        self._after(seconds, self._coordinator.free_disk)

    async def _darken(self, device: MonthDevice, seconds: float) -> None:
        self._dark.add(device.name)
        device.hindered.append((self._clock.now, self._clock.now + seconds))
        self._after(seconds, lambda: self._dark.discard(device.name))

    async def _shift_wall(self, by: float, seconds: float) -> None:
        self._clock.shift_wall(by)
        self._after(seconds, lambda: self._clock.shift_wall(-by))

    async def _set_wall_to_1970(self, seconds: float) -> None:
        self._clock.set_wall(0.0)
        self._after(seconds, lambda: self._clock.set_wall(START + self._clock.now))

    async def _boot_without_clock(self) -> None:
        for device in self._devices:
            await device.cut_power_and_start()
        self._clock.set_wall(30.0)

    async def _take_networks_time(self) -> None:
        self._clock.set_wall(START + self._clock.now)

    async def _put_coordinator_back(self) -> None:
        self._coordinator.put_back()
        names = {row.digest for row in self._coordinator.accepted()}
        self._lost_with_backup += sum(device.card.forget_accepted_but(names) for device in self._devices)

    async def _end_brief(self) -> None:
        names = {row.digest for row in self._coordinator.accepted() if row.task != BRIEF}
        self._coordinator.registry.remove(BRIEF)
        for device in self._devices:
            device.card.forget_accepted_but(names)

    async def _publish_second(self) -> None:
        self._coordinator.registry.publish(self._bundles.second)

    async def _rest(self) -> None:
        """Everything works again."""
        for device in self._devices:
            self._network.set_reachable(device.name, True)
        await asyncio.sleep(LONGEST_DAY * DAY - self._clock.now)
        self._check()
        for device in self._devices:
            check_rest(device)
            check_rounds(device)
        for task in self._coordinator.coordinator.tasks():
            assert self._coordinator.first_difference(task) is None, "a version is not what the journal makes"
        if self._growth:
            self._growth.end()
        for device in self._devices:
            await device.stop()

    def _summary(self) -> Summary:
        devices = self._devices
        books = [book for device in devices for book in device.all_books]
        return Summary(
            seed=self._seed,
            samples=sum(len(book.accepted) for book in books),
            samples_dropped=sum(book.dropped for book in books),
            samples_refused=sum(book.refused.total() for book in books),
            rounds=sum(len(device.worker.began) for device in devices),
            updates_accepted=sum(len(device.card.ledger.accepted) for device in devices),
            updates_taken_back=sum(len(device.card.ledger.taken_back) for device in devices),
            pieces_lost_with_a_bundle=sum(device.card.forgotten for device in devices),
            pieces_lost_with_a_backup=self._lost_with_backup,
            versions=sum(map(self._coordinator.newest_version, self._coordinator.coordinator.tasks())),
            power_cuts=sum(device.power_cuts for device in devices),
            writes_refused=sum(device.card.refused_writes for device in devices),
            connections=self._network.connections,
            longest_without_round_hours=round(max(map(longest_without_round, devices)) / HOUR, 1),
            growth_bytes=self._growth.bytes if self._growth else None,
        )
