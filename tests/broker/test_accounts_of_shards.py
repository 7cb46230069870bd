"""A broker with accounts once its fleet has several shards: each device has its own topics under all of them."""

import re
import secrets
from collections.abc import Iterator

import pytest

from fleet_protocol.device_invitation import read_invitation
from fleet_protocol.shards import shard_of
from tests.support.managed_server import Server, running_server
from tests.support.postgresql import PostgresqlServer
from tests.support.waiting import until

SHARDS = ("0", "1")
MOVER = next(name for name in ("pi-0", "pi-1", "pi-2", "pi-3") if shard_of(name, SHARDS) == "1")


@pytest.fixture
def server(postgresql: PostgresqlServer) -> Iterator[Server]:
    """Its database is one that shards may share."""
    with running_server() as server:
        server.kill()
        server.database = postgresql.database(secrets.token_hex(8))
        text = server.configuration.read_text()
        named = re.sub("^database = .*", f'database = "{server.database}"', text, flags=re.MULTILINE)
        server.configuration.write_text(named)
        server.start_serving()
        yield server


def topic(shard: str, device: str, leaf: str) -> str:
    return f"edgeflock/v1/home/{shard}/{device}/{leaf}"


def test_accounts_of_before_and_new_ones_reach_their_own_topics_in_every_shard(server: Server) -> None:
    key = server.admit("attic-pi")
    server.kill()
    text = server.configuration.read_text()
    server.configuration.write_text(f'shards = ["0", "1"]\n{text}')
    server.start_serving()
    until(lambda: "event=broker_rules_added" in server.log(), "those of before get them")
    logins = {"attic-pi": server.device_login("attic-pi", key)}
    logins["cellar-pi"] = server.device_login("cellar-pi", server.admit("cellar-pi"))
    for name, other in (("attic-pi", "cellar-pi"), ("cellar-pi", "attic-pi")):
        for shard in SHARDS:
            for leaf in ("up", "state", "session"):
                assert server.may_publish(logins[name], topic(shard, name, leaf)), (name, shard, leaf)
                assert not server.may_publish(logins[name], topic(shard, other, leaf)), (name, shard, leaf)
            for leaf in ("down", "relayed"):
                assert server.may_subscribe(logins[name], topic(shard, name, leaf)), (name, shard, leaf)
                assert not server.may_subscribe(logins[name], topic(shard, other, leaf)), (name, shard, leaf)
                assert not server.may_publish(logins[name], topic(shard, name, leaf)), (name, shard, leaf)
        assert not server.may_subscribe(logins[name], topic("+", "+", "down"))
    assert "broker_account_failed" not in server.log()


def test_invitation_names_the_devices_own_shard_and_its_account_reaches_that(server: Server) -> None:
    server.kill()
    text = server.configuration.read_text()
    server.configuration.write_text(f'shards = ["0", "1"]\n{text}')
    server.start_serving()
    invitation = read_invitation(server.invite(MOVER))
    assert invitation.shard == "1"
    login = server.guest_login(invitation)
    until(lambda: server.may_connect(login), "the invitation has its account")
    assert server.may_publish(login, topic("1", MOVER, "up"))
    assert server.may_subscribe(login, topic("1", MOVER, "down"))
    assert not server.may_publish(login, topic("1", MOVER, "state"))
