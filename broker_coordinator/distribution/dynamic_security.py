"""What Mosquitto's dynamic security plug-in is told: accounts, and the topics of each. Pure.

docs/decisions/broker-accounts.md says why this plug-in. Mosquitto 2.0 has no patterns in its rules, so that each
account has a role of its own, with its topics spelled out.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from fleet_protocol import topics

COMMANDS = "$CONTROL/dynamic-security/v1"
ANSWERS = "$CONTROL/dynamic-security/v1/response"

COORDINATOR_ACCOUNT = "broker-coordinator"
DEVICES_ROLE = "edgeflock-devices"
"""What every device may read."""

_EVERYWHERE = f"{topics.ROOT}/+"
"""Below this are the topics of every fleet."""
ANY_SHARD = "+"
"""In the place of a shard's name: the rule is for all of them."""
ANY_TASK = "+"
"""In the place of a task's name, likewise."""

PASSWORD_ROUNDS = 101
"""Of PBKDF2, as the plug-in has it: our passwords are 32 random bytes, which nobody guesses."""

Command = dict[str, Any]


class Rule(msgspec.Struct, frozen=True):
    """What a role may do on a topic, in the plug-in's words. No rule of ours forbids anything."""

    acltype: str
    topic: str
    priority: int = 0
    allow: bool = True


@dataclass(frozen=True, slots=True)
class BrokerAccount:
    """One account. It can connect under one client identifier alone, so that it ends nobody else's session.

    `takes_part`: it may say that it is there, and read what devices read; else it may enrol, and that is all.
    """

    name: str
    password: str
    client_identifier: str
    device: str
    takes_part: bool


def initial_rules(password: str, salt: bytes) -> bytes:
    """The plug-in's file for a new broker: the coordinator's account, and what devices may read. Nobody else may
    connect; what no rule allows is denied.
    """
    derived = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, PASSWORD_ROUNDS)
    coordinator = {
        "username": COORDINATOR_ACCOUNT,
        "textname": "makes the other accounts",
        "password": base64.b64encode(derived).decode(),
        "salt": base64.b64encode(salt).decode(),
        "iterations": PASSWORD_ROUNDS,
        "roles": [{"rolename": COORDINATOR_ACCOUNT}],
    }
    document = {
        "clients": [coordinator],
        "roles": [
            {"rolename": COORDINATOR_ACCOUNT, "acls": coordinator_rules()},
            {"rolename": DEVICES_ROLE, "acls": devices_rules()},
        ],
        "defaultACLAccess": {
            "publishClientSend": False,
            "publishClientReceive": True,
            "subscribe": False,
            "unsubscribe": True,
        },
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def coordinator_rules() -> list[Rule]:
    """Of the coordinator's own role, which the relay uses too."""
    may_write = (
        *("+/+/down", "+/+/relayed", "task/+", "invite/+", "query/+", "roster/+", "key/+", "blob/+/+"),
        "weights/+/+/+/+",
    )
    may_read = ("+/+/up", "+/+/state", "+/+/session", "task/+", "roster/+")
    return [
        *(Rule("publishClientSend", f"{_EVERYWHERE}/{each}") for each in may_write),
        *(Rule("subscribePattern", f"{_EVERYWHERE}/{each}") for each in may_read),
        Rule("publishClientSend", COMMANDS),
        Rule("subscribeLiteral", ANSWERS),
        Rule("publishClientReceive", ANSWERS),  # the default does not count for $CONTROL
    ]


def devices_rules() -> list[Rule]:
    """Of the role that all devices have."""
    may_read = ("task/+", "invite/+", "query/+", "roster/+", "gossip/+/from/+", "key/+", "blob/+/+", "weights/+/+/+/+")
    return [Rule("subscribePattern", f"{_EVERYWHERE}/{each}") for each in may_read]


def account_rules(fleet: str, shard: str, device: str, *, takes_part: bool) -> list[Rule]:
    """Of the role that one account has for itself. `ANY_SHARD` gives it its topics under every shard: so a device may
    move whenever the operator adds one, and the plug-in need not write its file again.
    """
    hears = "subscribePattern" if shard == ANY_SHARD else "subscribeLiteral"
    enrolling = [
        Rule("publishClientSend", topics.up(fleet, shard, device)),
        Rule(hears, topics.down(fleet, shard, device)),
    ]
    if not takes_part:
        return enrolling
    return [
        *enrolling,
        Rule("publishClientSend", topics.state(fleet, shard, device)),
        Rule("publishClientSend", topics.session(fleet, shard, device)),
        Rule("publishClientSend", topics.gossip(fleet, ANY_TASK, device)),
        Rule(hears, topics.relayed(fleet, shard, device)),
    ]


def list_accounts(group: str) -> bytes:
    """The request for the accounts of a group, which is made where there is none."""
    return _request([{"command": "createGroup", "groupname": group}, {"command": "getGroup", "groupname": group}])


def change_accounts(
    group: str, fleet: str, shard: str, added: Iterable[BrokerAccount], removed: Iterable[str]
) -> bytes:
    """The request that adds accounts to a group, and removes others, which ends their connections at once."""
    commands: list[Command] = []
    for name in removed:
        commands += [
            {"command": "deleteClient", "username": name, "correlationData": name},
            {"command": "deleteRole", "rolename": name, "correlationData": name},
        ]
    for account in added:
        commands += _creation(group, fleet, shard, account)
    return _request(commands)


def read_roles(names: Iterable[str]) -> bytes:
    """The request for the rules of some roles."""
    return _request([{"command": "getRole", "rolename": name, "correlationData": name} for name in names])


def add_rules(missing: Mapping[str, Iterable[Rule]]) -> bytes:
    """The request that gives roles, by name, rules that they lack, and ends their accounts' connections: whoever was
    refused a subscription asks for it again.
    """
    commands: list[Command] = []
    for name, rules in missing.items():
        commands += [
            {"command": "addRoleACL", "rolename": name, "correlationData": name, **msgspec.structs.asdict(rule)}
            for rule in rules
        ]
        if name not in (COORDINATOR_ACCOUNT, DEVICES_ROLE):
            # A new rule alone ends the connections of those accounts that 2.0 has read from its file.
            commands.append({"command": "modifyClient", "username": name, "correlationData": name})
    return _request(commands)


class Answer(msgspec.Struct, frozen=True):
    """The plug-in's answer to one command."""

    command: str = ""
    error: str = ""
    correlation: str = msgspec.field(default="", name="correlationData")
    data: Mapping[str, Any] = {}


class _Answers(msgspec.Struct, frozen=True):
    responses: list[Answer]


_IS_SO_ALREADY = {"create": "already exists", "delete": "not found", "add": "already exists"}
"""How the error ends, by how the command begins, where what was asked for is so already."""


def read_answers(data: bytes) -> list[Answer]:
    """The answers to one request.

    Raises:
        msgspec.MsgspecError: it is another document.
    """
    return msgspec.json.decode(data, type=_Answers).responses


def accounts_in(answers: Sequence[Answer]) -> set[str] | None:
    """The accounts that `list_accounts` asked for; None where these are other answers."""
    for answer in answers:
        if answer.command == "getGroup" and not answer.error:
            listed = msgspec.convert(answer.data, _GroupData).group.clients
            return {each.username for each in listed}
    return None


def topics_in(answers: Sequence[Answer]) -> dict[str, set[tuple[str, str]]]:
    """Kind and topic of each rule, whether it allows or forbids, of the roles that `read_roles` asked for."""
    roles = [
        msgspec.convert(each.data, _RoleData).role for each in answers if each.command == "getRole" and not each.error
    ]
    return {role.rolename: {(rule.acltype, rule.topic) for rule in role.acls} for role in roles}


def failures(answers: Sequence[Answer]) -> list[Answer]:
    """Those to commands that did not do, and had not done before, what they should."""
    return [each for each in answers if each.error and not _is_so_already(each)]


def _is_so_already(answer: Answer) -> bool:
    return any(
        answer.command.startswith(verb) and answer.error.endswith(ending) for verb, ending in _IS_SO_ALREADY.items()
    )


class _Member(msgspec.Struct, frozen=True):
    username: str


class _Group(msgspec.Struct, frozen=True):
    clients: list[_Member] = []


class _GroupData(msgspec.Struct, frozen=True):
    group: _Group


class _Role(msgspec.Struct, frozen=True):
    rolename: str
    acls: list[Rule] = []


class _RoleData(msgspec.Struct, frozen=True):
    role: _Role


def _creation(group: str, fleet: str, shard: str, account: BrokerAccount) -> list[Command]:
    own = account_rules(fleet, shard, account.device, takes_part=account.takes_part)
    roles = [account.name, DEVICES_ROLE] if account.takes_part else [account.name]
    return [
        {"command": "createRole", "rolename": account.name, "acls": own, "correlationData": account.name},
        {
            "command": "createClient",
            "username": account.name,
            "password": account.password,
            "clientid": account.client_identifier,
            "roles": [{"rolename": role} for role in roles],
            "groups": [{"groupname": group}],
            "correlationData": account.name,
        },
    ]


def _request(commands: Sequence[Command]) -> bytes:
    return msgspec.json.encode({"commands": commands})
