"""What a helper does with what its relay tells it."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edge_agent.core.shard_choice import Place
from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.versions.version_follower import ReadyVersion
from edge_agent.worker.settings import WorkerSettings
from fleet_protocol import topics
from fleet_protocol.envelope import read_envelope
from fleet_protocol.keys import SigningKey, VerifyKey, write_verify_key
from fleet_protocol.kinds import HelperOffer, News, SessionNotice, SessionReason, decode_payload
from fleet_protocol.kinds.session_fields import NO_SESSION
from fleet_protocol.limits import MAX_CONTROL_BYTES
from session_relay.helper.compute_contract import ComputeFailure
from session_relay.helper.configuration import HelperSettings, load_helper_configuration
from session_relay.helper.middle import Middle
from session_relay.helper.middles import Middles
from session_relay.helper.served_versions import REST_SECONDS, ServedVersions
from session_relay.helper.serving import SOON_SECONDS, Serving
from session_relay.relay.core.outbox import Outbox
from tests.support.fleet import FLEET, SHARD
from tests.support.helper import CONFIGURATION, TASK
from tests.support.split_session import shipped

NAME = "cellar-pi"
COORDINATOR = SigningKey.generate()
PINNED = write_verify_key(COORDINATOR.verify_key)


def helper(folder: Path) -> Serving:
    """One that the coordinator accepts as a device."""
    file = folder / "helper.toml"
    text = CONFIGURATION.format(
        fleet=FLEET, device=NAME, coordinator_key=PINNED, host="localhost", port=1883, task=TASK, answer_seconds=60
    )
    file.write_text(text)
    member = SimpleNamespace(
        identity=Identity(FLEET, SHARD, NAME, SigningKey.generate(), PINNED),
        database=SimpleNamespace(is_enrolled=lambda: True),
        link=None,
    )
    return Serving(load_helper_configuration(file), cast("Any", member), cast("Any", None))


@pytest.fixture
async def timers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, Callable[[], None]]]:
    """What the loop is asked to call later, and after how many seconds; nothing is."""
    timers: list[tuple[float, Callable[[], None]]] = []

    def note(seconds: float, callback: Callable[..., None], *arguments: object) -> SimpleNamespace:
        timers.append((seconds, partial(callback, *arguments)))
        return SimpleNamespace(cancel=lambda: None)

    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", note)
    return timers


async def test_version_that_can_not_be_loaded_is_offered_to_nobody_for_a_while(timers) -> None:
    offered: list[ReadyVersion | None] = []
    versions = ServedVersions(cast("Any", None), 1.0, changed=offered.append, in_use=lambda: [])
    version = ReadyVersion(3, "ab" * 32, shipped().description, {}, Path("weights"))
    versions.ready[TASK] = version
    versions.rest(version, "passed its memory limit of 64 MiB")
    assert not versions.ready
    assert versions.trouble == {TASK: "passed its memory limit of 64 MiB"}
    assert offered == [None], "the relay hears of it"
    known = SimpleNamespace(version=3, bundle="ab" * 32, generation=0)
    versions._member = cast("Any", SimpleNamespace(database=SimpleNamespace(known_version=lambda _task: known)))
    versions.look()
    assert await versions._follow(TASK), "a new connection, say, does not bring it back earlier"
    assert not versions.ready
    ((seconds, end_rest),) = timers
    assert seconds == REST_SECONDS
    end_rest()
    assert not versions._resting


async def test_offer_that_is_refused_again_and_again_is_made_again_once(tmp_path: Path, timers) -> None:
    serving = helper(tmp_path)
    relay = Outbox(COORDINATOR, FLEET, [SHARD])
    for _ in range(50):
        relay.notify(NAME, SessionNotice(NO_SESSION, News.REFUSED, SessionReason.NOT_APPROVED, "not allowed", 30))
        serving.relayed(relay.waiting[-1].data)
    assert [seconds for seconds, _ in timers] == [SOON_SECONDS], "however often somebody repeats a refusal"
    timers.pop()[1]()
    serving.relayed(relay.waiting[-1].data)
    assert [seconds for seconds, _ in timers] == [SOON_SECONDS], "and after that as before"


async def test_helper_that_has_moved_offers_itself_under_its_new_shard(tmp_path: Path) -> None:
    serving = helper(tmp_path)
    identity, sent = serving._member.identity, []

    def note(topic: str, data: bytes, *, at_least_once: bool) -> bool:
        sent.append((topic, data))
        return at_least_once

    serving._carrier._link = cast("Any", SimpleNamespace(send_off=note))
    identity.move(Place("north", "north"))
    serving.moved()
    serving._carrier.publish()
    assert [topic for topic, _ in sent] == [topics.session(FLEET, "north", NAME)]
    for topic, data in sent:
        envelope = read_envelope(data, MAX_CONTROL_BYTES)
        envelope.verify(VerifyKey(identity.public_key), topic)
        assert isinstance(decode_payload(envelope.payload, envelope.header.kind.payload), HelperOffer)


async def test_version_rests_whose_process_ends_before_it_has_computed_anything() -> None:
    """Its devices would open the next session, and the next one, to the same end."""
    told: list[str] = []
    watcher = SimpleNamespace(version_not_computed=lambda _, why: told.append(why))
    settings, failure = HelperSettings(), ComputeFailure("passed its memory limit of 512 MiB")
    version = ReadyVersion(1, "bundle", shipped().description, {}, Path("weights"))
    middles = Middles(settings, WorkerSettings(), cast(Any, None), cast(Any, None), cast(Any, watcher))
    middle = Middle(
        version, WorkerSettings(), settings, ready=lambda _: None, done=lambda _: None, seen=lambda *_: None
    )
    middle.is_loaded = True
    middles._note_failure(middle, failure)
    middle.has_answered = True
    middles._note_failure(middle, failure)
    assert told == [failure.error]
