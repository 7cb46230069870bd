"""When the agent and the coordinator tell systemd that they go on, and when they don't."""

import asyncio
from dataclasses import dataclass, field

import pytest

from broker_coordinator.mqtt.signs_of_life import SignsOfLife as CoordinatorSigns
from edge_agent.shell.signs_of_life import SignsOfLife as AgentSigns


@dataclass
class Manager:
    """Notes what it is told."""

    watchdog_seconds: float | None = 30.0
    told: list[str] = field(default_factory=list)
    second_sign: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def sign_seconds(self) -> float | None:
        return None if self.watchdog_seconds is None else 0.0

    def ready(self) -> None:
        self.told.append("ready")

    def alive(self) -> None:
        if "alive" in self.told:
            self.second_sign.set()
        self.told.append("alive")

    def status(self, words: str) -> None:
        self.told.append(words)


async def test_agent_is_ready_when_it_listens_and_not_before() -> None:
    manager, listens = Manager(), asyncio.Event()
    signs = asyncio.ensure_future(AgentSigns(manager, round_ends_by=lambda: None, words=lambda: "asleep").run(listens))
    await asyncio.sleep(0)
    assert manager.told == []
    listens.set()
    await manager.second_sign.wait()
    signs.cancel()
    assert manager.told[:5] == ["ready", "asleep", "alive", "asleep", "alive"]


async def test_agent_whose_round_outlives_its_limit_gives_no_sign_and_says_why(caplog) -> None:
    manager, listens = Manager(), asyncio.Event()
    listens.set()
    await AgentSigns(manager, round_ends_by=lambda: 0.0, words=lambda: "training").run(listens)
    assert manager.told == ["ready", "training"]
    assert "event=round_overdue" in caplog.text


async def test_agent_without_a_watchdog_wakes_for_none() -> None:
    manager, listens = Manager(watchdog_seconds=None), asyncio.Event()
    listens.set()
    await AgentSigns(manager, round_ends_by=lambda: None, words=lambda: "asleep").run(listens)
    assert manager.told == ["ready", "asleep"]


@pytest.mark.parametrize(("waiting_since", "goes_on"), [(None, True), (71.0, True), (70.0, False), (0.0, False)])
def test_coordinator_gives_signs_while_what_waits_is_younger_than_the_watchdogs_time(
    waiting_since, goes_on, caplog
) -> None:
    manager = Manager()
    CoordinatorSigns(manager).turned(100.0, waiting_since, lambda: "serves")
    assert manager.told == (["serves", "alive"] if goes_on else ["serves"])
    assert ("event=intake_stuck" in caplog.text) is not goes_on


def test_coordinator_that_is_not_watched_says_nothing() -> None:
    manager = Manager(watchdog_seconds=None)
    CoordinatorSigns(manager).turned(100.0, None, lambda: "serves")
    assert manager.told == []
