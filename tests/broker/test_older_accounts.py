"""A broker whose accounts an edgeflock without sessions has made: a coordinator gives them what they lack."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_protocol.broker_accounts import account_name
from fleet_protocol.kinds import SessionReason
from tests.support.asked_relay import ask_relay
from tests.support.bundles import THREE_BLOCKS, write_bundle
from tests.support.managed_server import Server, running_server
from tests.support.waiting import until

FORMER_RULES = [
    ("publishClientSend", "edgeflock/v1/+/+/+/down"),
    *(("publishClientSend", f"edgeflock/v1/+/{kind}") for kind in ("task/+", "invite/+", "key/+", "blob/+/+")),
    ("publishClientSend", "edgeflock/v1/+/weights/+/+/+/+"),
    ("publishClientSend", "$CONTROL/dynamic-security/v1"),
    ("publishClientReceive", "$CONTROL/dynamic-security/v1/response"),
    ("subscribeLiteral", "$CONTROL/dynamic-security/v1/response"),
    *(("subscribePattern", f"edgeflock/v1/+/{kind}") for kind in ("+/+/up", "+/+/state", "task/+")),
]
"""Of the coordinator's role."""


def former_rules_of(device: str) -> list[tuple[str, str]]:
    topic = f"edgeflock/v1/home/0/{device}"
    sent = [("publishClientSend", f"{topic}/{leaf}") for leaf in ("up", "state")]
    return [*sent, ("subscribeLiteral", f"{topic}/down")]


def make_former(file: Path, roles: dict[str, list[tuple[str, str]]]) -> None:
    """Write the plug-in's file as it was. Only while the broker does not run."""
    document = json.loads(file.read_text())
    for role in document["roles"]:
        if former := roles.get(role["rolename"]):
            role["acls"] = [{"acltype": kind, "topic": topic, "priority": 0, "allow": True} for kind, topic in former]
    file.write_text(json.dumps(document))


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


def test_accounts_of_before_get_the_topics_of_sessions_by_the_coordinators_start_alone(
    server: Server, tmp_path: Path
) -> None:
    key = server.admit("attic-pi")
    server.kill()
    server.broker.stop()
    rules = server.folder / "mosquitto-state" / "dynamic-security.json"
    account = account_name("attic-pi", key.verify_key)
    make_former(rules, {"broker-coordinator": FORMER_RULES, account: former_rules_of("attic-pi")})
    server.broker.start()
    login = server.device_login("attic-pi", key)
    until(lambda: server.may_connect(login), "the broker is back")
    session, relayed = (f"edgeflock/v1/home/0/attic-pi/{leaf}" for leaf in ("session", "relayed"))
    assert not server.may_publish(login, session)
    assert not server.may_subscribe(login, relayed)
    waiting = server.connect(login)
    ended: list[object] = []
    waiting.on_disconnect = lambda *why: ended.append(why)
    until(waiting.is_connected, "a device that was refused its subscription stays connected")

    server.start_serving()
    until(lambda: "event=broker_rules_added roles=2" in server.log(), "both roles have what they lacked")
    until(lambda: ended, "it has to connect, and to subscribe, anew")
    waiting.loop_stop()
    write_bundle(tmp_path / "cut", split=THREE_BLOCKS)
    server.tasks("publish", str(tmp_path / "cut"))
    until(lambda: "relay_connected" in server.log(), "the relay has subscribed")
    assert ask_relay(server, "attic-pi", key) == SessionReason.WRONG_BUNDLE
    assert "subscription_refused" not in server.log()
    assert "broker_account_failed" not in server.log()
