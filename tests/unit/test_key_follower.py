"""A device follows what its pinned key has signed, on the disk first, and nothing that is forged or replayed."""

import asyncio
import time

import pytest

from broker_coordinator.serving.successions import Successions
from edge_agent.shell.connection import key_follower, pinned_keys
from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.connection.inbox import Inbox
from edge_agent.shell.connection.key_follower import KeyFollower
from edge_agent.shell.connection.pinned_keys import PinnedKeys
from fleet_host.new_files import replace_file
from fleet_protocol.keys import SigningKey, VerifyKey, write_verify_key
from tests.support.waiting import DEADLINE_SECONDS

THIRD, SECOND, FIRST, STRANGER = (SigningKey(bytes([number]) * 32) for number in range(4, 0, -1))


class Broker:
    """Gives what is retained to whoever subscribes, also again."""

    def __init__(self, *messages: tuple[str, bytes]) -> None:
        self.retained = dict(messages)
        self.inbox: Inbox | None = None

    async def subscribe(self, topic: str) -> None:
        await asyncio.sleep(0)
        if (data := self.retained.get(topic)) is not None:
            self.inbox.handle(topic, data)

    async def unsubscribe(self, topic: str) -> None:
        pass


class Device:
    """Everything that decides about a key, and a file for it."""

    def __init__(self, folder, broker: Broker) -> None:
        self.pinned = PinnedKeys(folder, FIRST.verify_key)
        self.identity = Identity("home", "0", "pi", SigningKey(bytes(32)), write_verify_key(FIRST.verify_key))
        self.identity.coordinator = self.pinned.newest
        self.followed: list[VerifyKey] = []
        self.has_followed = asyncio.Event()
        self.follower = KeyFollower(self.pinned, self.identity, broker, followed=self._note)
        nothing = dict.fromkeys(
            ("receipt", "manifest", "not_readable", "invitation", "authorities", "queries", "chunk", "roster")
        )
        self.inbox = broker.inbox = Inbox("home", self.identity, succession=self.follower.receive, **nothing)

    def _note(self) -> None:
        self.followed.append(self.identity.coordinator)
        self.has_followed.set()

    async def keep_until(self, newest: SigningKey) -> None:
        keeping = asyncio.create_task(self.follower.keep())
        async with asyncio.timeout(DEADLINE_SECONDS):
            while self.identity.coordinator != newest.verify_key:
                await self.has_followed.wait()
                self.has_followed.clear()
        keeping.cancel()


def statements(*newest_first: SigningKey) -> dict[str, bytes]:
    successions = Successions(newest_first, "home", "0")
    successions.announce()
    return {each.topic: each.data for each in successions.publications(100, 0.0)}


def topic_of(key: SigningKey) -> str:
    (topic,) = statements(STRANGER, key)
    return topic


@pytest.mark.parametrize("seconds", [0.0, 4e9], ids=["1970", "2096"])
async def test_device_follows_through_several_keys_whatever_its_clock_says(tmp_path, monkeypatch, seconds):
    monkeypatch.setattr(time, "time", lambda: seconds)
    broker = Broker(*statements(THIRD, SECOND, FIRST).items())
    device = Device(tmp_path, broker)
    await device.keep_until(THIRD)
    assert device.followed == [SECOND.verify_key, THIRD.verify_key]
    assert Device(tmp_path, broker).identity.coordinator == THIRD.verify_key


async def test_forged_and_replayed_statements_change_nothing(tmp_path, caplog):
    device = Device(tmp_path, Broker(*statements(SECOND, FIRST).items()))
    genuine = statements(SECOND, FIRST)[topic_of(FIRST)]
    at_first = [
        statements(STRANGER, STRANGER)[topic_of(STRANGER)],
        statements(SECOND, STRANGER)[topic_of(STRANGER)],
        genuine[:-1],
        genuine[:-1] + bytes([genuine[-1] ^ 1]),
        b"",
        bytes(100_000),
    ]
    for forged in at_first:
        device.inbox.handle(topic_of(FIRST), forged)
    device.inbox.handle(topic_of(SECOND), genuine)
    assert (device.followed, device.pinned.newest) == ([], FIRST.verify_key)
    await device.keep_until(SECOND)
    caplog.clear()
    device.inbox.handle(topic_of(FIRST), genuine)
    device.inbox.handle(topic_of(FIRST), statements(STRANGER, FIRST)[topic_of(FIRST)])
    back = statements(FIRST, SECOND)[topic_of(SECOND)]
    device.inbox.handle(topic_of(SECOND), back)
    assert device.pinned.newest == device.identity.coordinator == SECOND.verify_key
    assert caplog.text.count("event=message_refused") == 3
    assert "was followed before; none comes back" in caplog.text


async def test_key_that_a_full_disk_did_not_take_is_not_trusted_and_asked_for_again(tmp_path, monkeypatch, caplog):
    written = []

    def full_at_first(path, content):
        written.append(content)
        if len(written) < 3:
            raise OSError(28, "No space left on device")
        replace_file(path, content)

    monkeypatch.setattr(pinned_keys, "replace_file", full_at_first)
    monkeypatch.setattr(key_follower, "RETRY_SECONDS", 0.0)
    device = Device(tmp_path, Broker(*statements(SECOND, FIRST).items()))
    device.inbox.handle(topic_of(FIRST), statements(SECOND, FIRST)[topic_of(FIRST)])
    assert device.identity.coordinator == device.pinned.newest == FIRST.verify_key
    await device.keep_until(SECOND)
    assert caplog.text.count("event=message_failed") == 2
    assert Device(tmp_path, Broker()).pinned.newest == SECOND.verify_key
