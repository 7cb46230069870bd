"""Devices among neighbours over a real broker: what is told, asked for and answered, and what hostile ones can do."""

import asyncio
import resource
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from edge_agent.core.gossip.talk import ANSWERS
from edge_agent.shell.gossiping.gossip import FLOOD, MESSAGES_AT_ONCE
from edge_agent.shell.gossiping.task_gossip import OTHER_GENERATION
from fleet_protocol import topics
from fleet_protocol.errors import Reason
from fleet_protocol.gossip_plan import GossipPlan
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import COPY_REQUEST, PRESENCE, TOLD, CopyRequest, PayloadKind, Presence, PresenceState, Told
from fleet_protocol.kinds import encode_payload as encoded
from fleet_protocol.limits import MAX_SEQUENCE
from tests.support.broker import Broker
from tests.support.bundles import TASK, write_bundle
from tests.support.device import SigningDevice
from tests.support.fleet import FLEET
from tests.support.gossiping_device import NAMES, GossipingDevice, roster_of

KEYS = {name: SigningKey.generate() for name in NAMES}
GENERATION = 1


def topic(name: str) -> str:
    return topics.gossip(FLEET, TASK, name)


@pytest.fixture
def devices(tmp_path: Path, broker: Broker) -> dict[str, GossipingDevice]:
    bundle = write_bundle(tmp_path / "bundle", gossip=GossipPlan("ring"))
    return {
        name: GossipingDevice(tmp_path / name, SigningDevice(name, key), bundle, broker) for name, key in KEYS.items()
    }


def signing() -> list[SigningDevice]:
    return [SigningDevice(name, key) for name, key in KEYS.items()]


async def met(stack: AsyncExitStack, *devices: GossipingDevice) -> None:
    """They run, and hear each other: attic - barn - cellar - den - attic."""
    for device in devices:
        await stack.enter_async_context(device.on())
    for device in devices:
        await device.follow(roster_of(signing()))


async def test_changes_are_told_heard_and_mixed_and_a_whole_copy_is_asked_for_once_needed(devices) -> None:
    attic, barn = devices["attic"], devices["barn"]
    async with AsyncExitStack() as stack:
        await met(stack, attic, barn)
        await attic.round()
        await barn.until(lambda: barn.known("attic") == 1, "the first change has come")
        assert (await barn.round()).refused == []
        assert barn.state.copies["attic"].head.number == 1
        await attic.until(lambda: attic.known("barn") == 1, "barn's too")
    async with AsyncExitStack() as stack:
        await met(stack, attic)
        await attic.round()
        await attic.round()  # which barn sleeps through
        await stack.enter_async_context(barn.on())
        await barn.hears()
        await attic.round()
        await barn.until(lambda: barn.known("attic") == 4, "the whole copy that it has asked for")
        await barn.round()
        assert barn.state.copies["attic"].head.number == 4
        assert barn.refused == attic.refused == {}


async def test_the_last_change_is_told_again_with_the_next_connection(devices, broker) -> None:
    attic, barn = devices["attic"], devices["barn"]
    async with AsyncExitStack() as stack:
        await met(stack, attic)
        broker.kill()
        await attic.until(lambda: not attic.link.connected, "the broker is gone")
        await attic.round()
    broker.start()
    async with AsyncExitStack() as stack:
        await met(stack, barn, attic)
        await barn.until(lambda: barn.known("attic") == 1, "what was told while there was no broker")


async def test_a_state_that_was_put_back_begins_another_life_once_neighbours_say_so(devices, tmp_path) -> None:
    attic, barn = devices["attic"], devices["barn"]
    async with AsyncExitStack() as stack:
        await met(stack, attic, barn)
        await attic.round()
        await barn.until(lambda: barn.known("attic") == 1, "the first change")
    shutil.copytree(tmp_path / "attic", tmp_path / "backup")
    async with AsyncExitStack() as stack:
        await met(stack, attic, barn)
        for number in (2, 3, 4):
            await attic.round()
            await barn.until(lambda number=number: barn.known("attic") == number, "they are in step")
        await barn.round()
        life = attic.state.head.life
    shutil.rmtree(tmp_path / "attic")
    shutil.copytree(tmp_path / "backup", tmp_path / "attic")
    async with AsyncExitStack() as stack:
        await met(stack, barn, attic)
        talk = attic.gossip._tasks[TASK].talk
        await attic.until(lambda: talk.was_put_back, "barn has told it, as attic has said its last change again")
        await attic.round(scale=0.0)
        assert attic.state.head.life != life
        assert attic.state.last_told is not None
        assert attic.state.last_told.whole
        await barn.until(lambda: barn.known("attic") == 1, "of the new life")
        await barn.round()
        assert barn.state.copies["attic"].head.life == attic.state.head.life
        await attic.round()
        await barn.until(lambda: barn.known("attic") == 2, "and goes on from there")


async def test_a_newer_roster_changes_neighbours_an_older_one_nothing_and_who_is_not_in_it_says_so(devices) -> None:
    attic = devices["attic"]
    async with attic.on():
        await attic.round_is_refused("no roster has come yet")
        await attic.follow(roster_of(signing(), 5))
        status = attic.gossip.status[TASK]
        assert list(status.neighbours) == ["barn", "den"]
        assert (status.number, status.devices, status.why_not) == (5, 4, "")
        await attic.follow(roster_of(signing()[:3], 4))
        assert list(attic.gossip.status[TASK].neighbours) == ["barn", "den"], "it is older"
        await attic.follow(roster_of(signing()[:3], 6))
        assert list(attic.gossip.status[TASK].neighbours) == ["barn", "cellar"]
        assert topic("den") not in attic.gossip._subscribed
    async with attic.on():
        assert list(attic.gossip.status[TASK].neighbours) == ["barn", "cellar"], "it is kept"
        await attic.follow(roster_of(signing()[1:], 7))
        await attic.round_is_refused("not in the roster of 3 devices; on the server: broker-coordinator devices")
        assert attic.gossip.status[TASK].neighbours == {}
        await attic.follow(roster_of(signing()[:2], 8))
        await attic.round_is_refused("it takes 3 or more; add devices")
        renamed = [SigningDevice("attic", SigningKey.generate()), *signing()[1:]]
        await attic.follow(roster_of(renamed, 9))
        await attic.round_is_refused("another key for attic")
        assert attic.looked == []
        await attic.follow(roster_of(signing(), 10, bundle="f0" * 32))
        await attic.round_is_refused("waits for the other")
        assert attic.looked == [TASK], "there is a manifest to look at"


async def test_a_roster_that_comes_before_the_bundle_is_kept_and_another_generation_is_told_again(devices) -> None:
    attic, barn = devices["attic"], devices["barn"]
    async with AsyncExitStack() as stack:
        await met(stack, attic, barn)
        await attic.round()
        await barn.until(lambda: barn.known("attic") == 1, "the first change")
        newer = msgspec.structs.replace(roster_of(signing()), generation=2)
        state = attic.state
        await attic.follow(newer)
        await barn.until(lambda: barn.refused.keys() == {OTHER_GENERATION}, "it is behind, and attic is no liar")
        assert attic.state == state, "the bundle is the same"
        await barn.follow(newer)
        await attic.round()
        await barn.until(lambda: barn.known("attic") == 2, "both follow it")
        barn.gossip._tasks.clear()
        barn.gossip.take_roster(TASK, msgspec.structs.replace(newer, number=7))
        barn.gossip._follow_tasks()
        assert barn.gossip.status[TASK].number == 7


def told(number: int = 1, life: int = 9, packed: bytes = b"\xff") -> tuple[PayloadKind, bytes]:
    return TOLD, encoded(Told(life, number, packed))


HOSTILE: dict[str, tuple[str, Callable[[SigningDevice, str], bytes]]] = {
    "no message": (Reason.MALFORMED, lambda _sender, _topic: b"\x00"),
    "of somebody else": (
        Reason.BAD_SIGNATURE,
        lambda _sender, there: SigningDevice("barn").identity.sign_to_neighbours(there, *told(), TASK, GENERATION),
    ),
    "signed for another topic": (
        Reason.BAD_SIGNATURE,
        lambda sender, _there: sender.identity.sign_to_neighbours(topic("den"), *told(), TASK, GENERATION),
    ),
    "of another generation": (
        OTHER_GENERATION,
        lambda sender, there: sender.identity.sign_to_neighbours(there, *told(), TASK, 2),
    ),
    "of another task": (
        Reason.MALFORMED,
        lambda sender, there: sender.identity.sign_to_neighbours(there, *told(), "another", GENERATION),
    ),
    "of another kind": (
        Reason.MALFORMED,
        lambda sender, there: sender.identity.sign_to_neighbours(
            there, PRESENCE, encoded(Presence(PresenceState.ONLINE, 1)), TASK, GENERATION
        ),
    ),
    "larger than any copy": (
        Reason.TOO_LARGE,
        lambda sender, there: sender.identity.sign_to_neighbours(there, *told(packed=bytes(1300)), TASK, GENERATION),
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_what_no_neighbour_may_say_is_refused_and_counted_and_others_are_heard(devices, broker, name) -> None:
    attic, den = devices["attic"], devices["den"]
    reason, make = HOSTILE[name]
    async with AsyncExitStack() as stack:
        await met(stack, attic, den)
        await den.link.publish(topic("barn"), make(SigningDevice("barn", KEYS["barn"]), topic("barn")))
        await attic.until(lambda: attic.refused == {reason: 1}, "it is refused")
        await den.round()
        await attic.until(lambda: attic.known("den") == 1, "another neighbour is heard")
        assert attic.known("barn") == 0


async def test_absurd_numbers_and_content_cost_a_neighbour_its_own_copy_alone(devices) -> None:
    attic, den = devices["attic"], devices["den"]
    barn = SigningDevice("barn", KEYS["barn"]).identity
    async with AsyncExitStack() as stack:
        await met(stack, attic, den)
        for message in (told(), told(2), (TOLD, encoded(Told(MAX_SEQUENCE, MAX_SEQUENCE, b"\xff", whole=True)))):
            signed = barn.sign_to_neighbours(topic("barn"), *message, TASK, GENERATION)
            await den.link.publish(topic("barn"), signed)
        await den.round()
        await attic.until(lambda: attic.known("den") == 1, "den is heard")
        ended = await attic.round()
        assert [each.neighbour for each in ended.refused] == ["barn"]
        assert attic.state.copies.keys() == {"den"}
        assert attic.refused == {Reason.MALFORMED: 1}


async def test_a_flood_of_messages_is_not_looked_at_and_others_are_heard(devices) -> None:
    attic, den = devices["attic"], devices["den"]
    async with AsyncExitStack() as stack:
        await met(stack, attic, den)
        for _ in range(MESSAGES_AT_ONCE + 50):
            den.link.send_off(topic("barn"), b"\x00")
        await den.round()
        await attic.until(lambda: attic.known("den") == 1, "den is heard")
        assert attic.refused[Reason.MALFORMED] <= MESSAGES_AT_ONCE + 5
        assert attic.refused[FLOOD] >= 40


async def test_nobody_makes_a_device_send_whole_copies_without_end(devices) -> None:
    attic, den = devices["attic"], devices["den"]
    published: list[int] = []
    async with AsyncExitStack() as stack:
        await met(stack, attic, den)
        publish = attic.link.publish

        async def count(where: str, message: bytes, **options: bool) -> None:
            published.append(len(message))
            await publish(where, message, **options)

        attic.link.publish = count  # type: ignore[method-assign]
        await attic.round()
        await attic.until(lambda: published, "the change is told")
        published.clear()
        talk = attic.gossip._tasks[TASK].talk

        def is_late() -> bool:
            return talk.next_due is not None and talk.next_due > asyncio.get_running_loop().time() + 10

        for _ in range(ANSWERS.burst + 2):
            barn = SigningDevice("barn", KEYS["barn"]).identity
            request = barn.sign_to_neighbours(
                topic("barn"), COPY_REQUEST, encoded(CopyRequest("attic")), TASK, GENERATION
            )
            before = len(published)
            await den.link.publish(topic("barn"), request)
            await attic.until(lambda before=before: len(published) > before or is_late(), "it answers, or will late")
            if is_late():
                break
        assert len(published) == ANSWERS.burst


async def test_a_request_of_somebody_who_is_no_neighbour_is_not_answered(devices) -> None:
    attic, barn = devices["attic"], devices["barn"]
    cellar = SigningDevice("cellar", KEYS["cellar"]).identity
    async with AsyncExitStack() as stack:
        await met(stack, attic, barn)
        await attic.round()
        request = cellar.sign_to_neighbours(
            topic("cellar"), COPY_REQUEST, encoded(CopyRequest("attic")), TASK, GENERATION
        )
        attic.gossip.hear(topic("cellar"), request)
        assert attic.gossip._tasks[TASK].talk.next_due is None
        await barn.until(lambda: barn.known("attic") == 1, "its neighbours hear it")


async def test_a_task_that_is_removed_is_left_and_nothing_is_said_of_it(devices) -> None:
    attic = devices["attic"]
    async with AsyncExitStack() as stack:
        await met(stack, attic)
        await attic.round()
        known = attic.database.known_version(TASK)
        attic.database.set_known_version(TASK, replace(known, generation=known.generation + 1, removed=True))
        attic.gossip.look_again()
        await attic.until(lambda: not attic.gossip._subscribed, "it hears neither neighbours nor rosters of it")
        assert attic.gossip.status == {}


async def test_a_round_that_a_full_card_does_not_take_is_done_again_with_what_was_heard(devices) -> None:
    attic, barn = devices["attic"], devices["barn"]
    async with AsyncExitStack() as stack:
        await met(stack, attic, barn)
        await barn.round()
        before = barn.state
        await attic.round()
        await barn.until(lambda: barn.known("attic") == 1, "the change has come")
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, unlimited[1]))
        try:
            with pytest.raises(sqlite3.OperationalError):
                await barn.round()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        assert barn.state == before
        await barn.round()
        assert barn.state.head.rounds == before.head.rounds + 1
        assert barn.state.copies["attic"].head.number == 1


async def test_neighbours_hear_each_other_whatever_their_clocks_show(devices, monkeypatch) -> None:
    attic, barn = devices["attic"], devices["barn"]
    async with AsyncExitStack() as stack:
        await met(stack, attic, barn)
        for number, now in enumerate((0.0, 4e9, -86_400.0), start=1):
            monkeypatch.setattr("time.time", lambda now=now: now)
            await attic.round()
            await barn.until(lambda number=number: barn.known("attic") == number, "the change has come")
            assert (await barn.round()).refused == []
            assert barn.state.copies["attic"].head.number == number
            (known,) = (each for name, each in barn.gossip.status[TASK].neighbours.items() if name == "attic")
            assert known.seconds_ago is not None
            assert 0 <= known.seconds_ago < 600
