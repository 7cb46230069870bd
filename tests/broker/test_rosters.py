"""Rosters on a real Mosquitto with accounts: they follow who is let in, and no device tells in another's name."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_protocol import topics
from fleet_protocol.device_invitation import read_invitation
from fleet_protocol.envelope import read_envelope
from fleet_protocol.gossip_plan import GossipPlan
from fleet_protocol.kinds import ROSTER, Roster, decode_payload
from tests.support.bundles import TASK, write_bundle
from tests.support.managed_server import Server, run, running_server
from tests.support.waiting import until

TOPIC = topics.roster("home", TASK)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    write_bundle(tmp_path / "bundle", gossip=GossipPlan("ring"))
    with running_server() as server:
        server.tasks("publish", str(tmp_path / "bundle"))
        yield server


def retained(server: Server, login: list[str]) -> bytes:
    """What the broker has for whoever subscribes to the roster; nothing where it has none."""
    return bytes.fromhex(run("mosquitto_sub", *login, "-t", TOPIC, "-C", "1", "-W", "1", "-F", "%x").stdout.strip())


def roster(server: Server, login: list[str]) -> Roster | None:
    data = retained(server, login)
    if not data:
        return None
    envelope = read_envelope(data, ROSTER.max_bytes)
    envelope.verify(server.key.verify_key, TOPIC)
    return decode_payload(envelope.payload, Roster)


def members(server: Server, login: list[str]) -> list[str]:
    found = roster(server, login)
    return [each.name for each in found.members] if found else []


def test_a_roster_follows_who_is_let_in_and_outlives_its_coordinator(server: Server) -> None:
    names = ("attic-pi", "cellar-pi", "shed-pi")
    keys = {name: server.admit(name) for name in names}
    logins = {name: server.device_login(name, key) for name, key in keys.items()}
    attic = logins["attic-pi"]
    until(lambda: members(server, attic) == list(names), "all are in it")
    before = roster(server, attic)

    own, others = (topics.gossip("home", TASK, name) for name in ("attic-pi", "cellar-pi"))
    assert server.may_publish(attic, own)
    assert not server.may_publish(attic, others)
    assert not server.may_publish(attic, TOPIC)
    assert not server.may_publish(attic, topics.gossip("home", "attic-pi", "up")), "a device called like a task"
    assert server.may_subscribe(attic, others)
    assert server.may_subscribe(attic, TOPIC)

    guest = server.guest_login(read_invitation(server.invite("barn-pi")))
    until(lambda: server.may_connect(guest), "the invitation has its account")
    for topic in (TOPIC, own, topics.gossip("home", TASK, "barn-pi")):
        assert not server.may_subscribe(guest, topic)
        assert not server.may_publish(guest, topic)

    server.kill()
    assert roster(server, attic) == before, "the broker keeps it for whoever comes while nobody coordinates"
    server.start_serving()
    server.devices("revoke", "cellar-pi")
    until(lambda: members(server, attic) == ["attic-pi", "shed-pi"], "one is out")
    after = roster(server, attic)
    assert before is not None
    assert after is not None
    assert after.number == before.number + 1
    until(lambda: not server.may_connect(logins["cellar-pi"]), "its account is gone")
    server.tasks("remove", TASK)
    until(lambda: retained(server, attic) == b"", "a task that is removed has no roster")
