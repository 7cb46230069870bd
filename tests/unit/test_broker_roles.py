"""Roles that lack rules get them, and nothing else: against a model of what Mosquitto's plug-in answers."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from broker_coordinator.distribution.dynamic_security import (
    ANY_SHARD,
    COORDINATOR_ACCOUNT,
    DEVICES_ROLE,
    coordinator_rules,
    devices_rules,
    failures,
    read_answers,
)
from broker_coordinator.serving.broker_roles import CHANGED_AT_ONCE, READ_AT_ONCE, BrokerRoles
from broker_coordinator.storage.broker_account_rows import Holder
from fleet_protocol.keys import SigningKey

OWN_ROLES = 2
KEY = SigningKey(bytes(32)).verify_key


class PlugIn:
    """The rules of each role, by kind and topic, and the requests that it has answered."""

    def __init__(self, accounts: Mapping[str, Holder]) -> None:
        own = {COORDINATOR_ACCOUNT: coordinator_rules(), DEVICES_ROLE: devices_rules()}
        self.roles = {name: {(rule.acltype, rule.topic): rule.allow for rule in rules} for name, rules in own.items()}
        for name, holder in accounts.items():
            topic = f"edgeflock/v1/home/0/{holder.device}"
            sent = ("up", "state") if holder.takes_part else ("up",)
            self.roles[name] = {("publishClientSend", f"{topic}/{leaf}"): True for leaf in sent}
            self.roles[name]["subscribeLiteral", f"{topic}/down"] = True
        self.requests: list[list[dict[str, Any]]] = []
        self.takes_rules = True

    def answer(self, request: bytes) -> bytes:
        commands = json.loads(request)["commands"]
        self.requests.append(commands)
        return json.dumps({"responses": [self._answer(each) for each in commands]}).encode()

    def changes(self) -> list[list[dict[str, Any]]]:
        return [each for each in self.requests if each[0]["command"] != "getRole"]

    def _answer(self, command: dict[str, Any]) -> dict[str, Any]:
        said = {"command": command["command"], "correlationData": command["correlationData"]}
        rules = self.roles.get(command.get("rolename", command.get("username")))
        if rules is None:
            return {**said, "error": "Role not found"}
        if command["command"] == "getRole":
            acls = [
                {"acltype": kind, "topic": topic, "priority": 0, "allow": allow}
                for (kind, topic), allow in rules.items()
            ]
            return {**said, "data": {"role": {"rolename": command["rolename"], "acls": acls}}}
        if command["command"] == "addRoleACL" and self.takes_rules:
            rules[command["acltype"], command["topic"]] = command["allow"]
        return said


def accounts(number: int) -> dict[str, Holder]:
    return {f"pi-{each}.ab": Holder(f"pi-{each}", KEY, takes_part=True) for each in range(number)}


def settle(roles: BrokerRoles, plug_in: PlugIn, wanted: Mapping[str, Holder]) -> None:
    """Ask and answer until there is nothing more to ask."""
    for _ in range(1000):
        if (request := roles.request(wanted, wanted.keys())) is None:
            return
        roles.receive(read_answers(plug_in.answer(request)))
    pytest.fail("it goes on asking")


def test_a_large_fleet_is_read_and_changed_some_roles_at_a_time(caplog) -> None:
    caplog.set_level("INFO")
    wanted = accounts(2 * READ_AT_ONCE + 1)
    plug_in, roles = PlugIn(wanted), BrokerRoles("home", "0")
    settle(roles, plug_in, wanted)
    for name, holder in wanted.items():
        topic = f"edgeflock/v1/home/0/{holder.device}"
        assert plug_in.roles[name]["publishClientSend", f"{topic}/session"]
        assert plug_in.roles[name]["subscribeLiteral", f"{topic}/relayed"]
    assert max(len(each) for each in plug_in.requests) <= READ_AT_ONCE
    changed = [{each.get("rolename") for each in request} - {None} for request in plug_in.changes()]
    assert max(map(len, changed)) <= CHANGED_AT_ONCE
    assert sum(map(len, changed)) == len(wanted), "each once"
    assert f"event=broker_rules_added roles={len(wanted)}" in caplog.text


def test_a_broker_that_lacks_nothing_is_sent_no_change_on_any_connection() -> None:
    wanted = accounts(3)
    plug_in, roles = PlugIn(wanted), BrokerRoles("home", "0")
    settle(roles, plug_in, wanted)
    plug_in.requests.clear()
    for again in (roles, BrokerRoles("home", "0")):
        again.connected()
        settle(again, plug_in, wanted)
    assert not plug_in.changes()
    assert len(plug_in.requests) == 2


def test_the_coordinators_own_role_and_that_of_all_devices_are_completed_first() -> None:
    wanted = accounts(READ_AT_ONCE)
    plug_in, roles = PlugIn(wanted), BrokerRoles("home", "0")
    for own in (COORDINATOR_ACCOUNT, DEVICES_ROLE):
        plug_in.roles[own].popitem()
    settle(roles, plug_in, wanted)
    assert {each.get("rolename") for each in plug_in.changes()[0]} >= {COORDINATOR_ACCOUNT, DEVICES_ROLE}
    assert {(rule.acltype, rule.topic) for rule in coordinator_rules()} == plug_in.roles[COORDINATOR_ACCOUNT].keys()
    assert {(rule.acltype, rule.topic) for rule in devices_rules()} == plug_in.roles[DEVICES_ROLE].keys()


def test_answers_that_overlap_are_all_taken_and_those_of_an_earlier_connection_are_not() -> None:
    wanted = accounts(2 * READ_AT_ONCE)
    plug_in, roles = PlugIn(wanted), BrokerRoles("home", "0")
    requests = [roles.request(wanted, wanted.keys()) for _ in range(2)]
    first, second = (plug_in.answer(request) for request in requests if request is not None)
    roles.receive(read_answers(first))
    roles.receive(read_answers(second))
    settle(roles, plug_in, wanted)
    assert all(len(plug_in.roles[name]) == len(plug_in.roles["pi-0.ab"]) > 3 for name in wanted)
    plug_in.requests.clear()
    plug_in.roles["pi-0.ab"].popitem()
    roles.connected()
    roles.receive(read_answers(first))
    assert b"getRole" in (roles.request(wanted, wanted.keys()) or b""), "what the broker has now is read first"


def test_a_broker_that_takes_no_rules_is_named_and_not_asked_for_ever(caplog) -> None:
    wanted = accounts(1)
    plug_in, roles = PlugIn(wanted), BrokerRoles("home", "0")
    plug_in.takes_rules = False
    for _ in range(3):
        roles.connected()
        settle(roles, plug_in, wanted)
    assert len(plug_in.changes()) == 1
    assert "event=broker_account_failed account=pi-0.ab" in caplog.text
    assert "edgeflock/v1/home/0/pi-0/session" in caplog.text


def test_what_an_operator_forbids_stays_forbidden() -> None:
    wanted = accounts(1)
    plug_in, roles = PlugIn(wanted), BrokerRoles("home", "0")
    forbidden = ("publishClientSend", "edgeflock/v1/home/0/pi-0/session")
    plug_in.roles["pi-0.ab"][forbidden] = False
    settle(roles, plug_in, wanted)
    assert plug_in.roles["pi-0.ab"][forbidden] is False


def test_an_invitation_gets_no_topic_of_sessions_and_an_account_that_has_ended_none_at_all() -> None:
    invited = {"guest.cd": Holder("guest", KEY, takes_part=False)}
    wanted = accounts(1)
    plug_in, roles = PlugIn(wanted | invited), BrokerRoles("home", "0")
    request = roles.request(wanted | invited, wanted.keys() | invited.keys())
    assert request is not None
    roles.receive(read_answers(plug_in.answer(request)))
    settle(roles, plug_in, invited)
    assert not plug_in.changes()


def test_a_role_that_is_missing_is_a_failure_and_one_that_has_the_rule_already_is_none() -> None:
    plug_in, roles = PlugIn({}), BrokerRoles("home", "0")
    wanted = accounts(1)
    request = roles.request(wanted, wanted.keys())
    assert request is not None
    answers = read_answers(plug_in.answer(request))
    assert [each.correlation for each in failures(answers)] == ["pi-0.ab"]
    had = {"command": "addRoleACL", "error": "ACL with this topic already exists", "correlationData": "pi-0.ab"}
    assert not failures(read_answers(json.dumps({"responses": [had]}).encode()))


def test_a_role_that_is_described_in_another_way_is_refused() -> None:
    answer = {"command": "getRole", "data": {"role": {"rolename": 3}}, "correlationData": "x"}
    with pytest.raises(msgspec.ValidationError):
        BrokerRoles("home", "0").receive(read_answers(json.dumps({"responses": [answer]}).encode()))


def test_accounts_of_before_get_their_topics_under_every_shard_once_there_are_several() -> None:
    wanted = accounts(2)
    plug_in = PlugIn(wanted)
    settle(BrokerRoles("home", ANY_SHARD), plug_in, wanted)
    for name, holder in wanted.items():
        topic = f"edgeflock/v1/home/+/{holder.device}"
        assert all(plug_in.roles[name]["publishClientSend", f"{topic}/{leaf}"] for leaf in ("up", "state", "session"))
        assert all(plug_in.roles[name]["subscribePattern", f"{topic}/{leaf}"] for leaf in ("down", "relayed"))
        assert plug_in.roles[name]["publishClientSend", f"edgeflock/v1/home/0/{holder.device}/up"], "nothing is taken"
    plug_in.requests.clear()
    settle(BrokerRoles("home", ANY_SHARD), plug_in, wanted)
    assert not plug_in.changes()
