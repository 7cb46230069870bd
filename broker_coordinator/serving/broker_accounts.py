"""Keeps the broker's accounts as the database says: one for each approved device, and for each invitation.

What the broker has is asked for at each connection, and only the difference is sent, some accounts at a time: so it
does not matter when the coordinator was killed, nor whether the broker has lost them. An account whose key the database
does not know stays: the database may be older (`older_database`). Their rules follow (`broker_roles`).
"""

import logging
import time
from collections.abc import Iterator, Sequence

import msgspec
from sqlalchemy import Engine

from broker_coordinator.distribution.dynamic_security import (
    ANY_SHARD,
    COMMANDS,
    BrokerAccount,
    accounts_in,
    change_accounts,
    failures,
    list_accounts,
    read_answers,
)
from broker_coordinator.distribution.signed_messages import Publication
from broker_coordinator.serving.broker_roles import BrokerRoles
from broker_coordinator.serving.older_database import compare_accounts
from broker_coordinator.storage.broker_account_rows import (
    Holder,
    change_mark,
    note_coordinator_key,
    read_holders,
    sort_strays,
)
from broker_coordinator.storage.database import JournalUnavailableError
from fleet_host.log_lines import log_line
from fleet_protocol.broker_accounts import account_name, client_identifier, password_of
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import KeyRing, SigningKey, key_id

ACCOUNTS_AT_ONCE = 5
"""In one request. Mosquitto 2.0 writes its whole file twice for each, and serves nobody meanwhile: 50 ms for one of
4,000 accounts."""
LOOK_SECONDS = 1.0
"""Between two looks at whether an operator or an enrolment has changed something."""
ANSWER_SECONDS = 30.0
"""Longest wait for the plug-in's answer; then it is asked again what there is."""

logger = logging.getLogger(__name__)


class BrokerAccounts:
    """Makes and removes accounts through Mosquitto's dynamic security. `now` is in seconds on any one clock."""

    def __init__(self, engine: Engine, keys: KeyRing, fleet: str, shard: str, shards: Sequence[str] = ()) -> None:
        """`shards` are all of the fleet, where they are named: whichever process keeps the accounts, they are those of
        the first.
        """
        self._engine = engine
        self._keys = {key_id(key.verify_key): key for key in keys}
        self._newest = key_id(keys[0].verify_key)
        self._fleet = fleet
        self._shard = ANY_SHARD if shards else shard
        self._group = f"edgeflock.{fleet}.{shards[0] if shards else shard}"
        self._roles = BrokerRoles(fleet, self._shard)
        self._wanted: dict[str, Holder] = {}
        self._existing: set[str] | None = None
        self._mark: tuple[int, int] | None = None
        self._until = 0.0
        self._look_at = 0.0
        self._requested: tuple[set[str], set[str]] | None = None
        self._answer_by = 0.0
        self._refused: set[str] = set()
        self._kept: set[str] = set()
        self._is_listed_anew = False

    def connected(self) -> None:
        """A connection begins: what the broker has is not known."""
        self._existing = None
        self._requested = None
        self._refused.clear()
        self._roles.connected()
        self._look_at = 0.0

    def receive(self, data: bytes) -> None:
        """Take the plug-in's answer to a request."""
        try:
            answers = read_answers(data)
            found = accounts_in(answers)
            self._roles.receive(answers)
        except msgspec.MsgspecError as error:
            logger.error(log_line("broker_account_failed", error=error, remedy="compare the version of Mosquitto"))
            return
        added, removed = self._requested or (set(), set())
        for failed in failures(answers):
            if failed.correlation in added | removed:  # who lacks only a rule can still be removed
                self._refused.add(failed.correlation)
            logger.error(
                log_line(
                    "broker_account_failed",
                    account=failed.correlation,
                    error=f"{failed.command}: {failed.error}",
                    remedy="see the broker's log; it is tried again after the next connection",
                )
            )
        if found is not None:
            self._existing = found
            self._is_listed_anew = True
        elif self._existing is not None:
            self._existing = (self._existing | (added - self._refused)) - removed
        self._requested = None
        self._look_at = 0.0

    def next_due(self) -> float:
        """When `publications` will next have something, or look whether it has."""
        return self._look_at

    def publications(self, limit: int, now: float) -> list[Publication]:
        """At most one request, when there is something to ask for and the last one is answered."""
        if limit <= 0 or now < self._look_at:
            return []
        self._look_at = now + LOOK_SECONDS
        if self._requested is not None:
            if now < self._answer_by:
                return []
            logger.warning(
                log_line(
                    "broker_accounts_unanswered",
                    waited_s=f"{ANSWER_SECONDS:g}",
                    remedy="let the broker load its dynamic security plug-in (mosquitto.conf), or take"
                    " broker_accounts out of coordinator.toml",
                )
            )
            self._existing = None
            self._roles.connected()
        try:
            request = self._request()
        except JournalUnavailableError:  # the link says so
            return []
        if request is None:
            return []
        self._answer_by = now + ANSWER_SECONDS
        return [Publication(COMMANDS, request)]

    def _request(self) -> bytes | None:
        self._read_wanted()
        if self._existing is None:
            self._requested = set(), set()
            return list_accounts(self._group)
        if self._is_listed_anew:
            compare_accounts(self._engine, self._existing, self._wanted)
            self._is_listed_anew = False
            self._read_wanted()
        removed = sorted(self._ended(self._existing))[:ACCOUNTS_AT_ONCE]
        missing = [name for name in self._wanted if name not in self._existing and name not in self._refused]
        holders = {name: self._wanted[name] for name in missing[: ACCOUNTS_AT_ONCE - len(removed)]}
        accounts = self._accounts(holders)
        self._requested = {each.name for each in accounts}, set(removed)
        if not accounts and not removed:
            request = self._roles.request(self._wanted, self._existing)
            self._requested = None if request is None else self._requested
            return request
        return change_accounts(self._group, self._fleet, self._shard, accounts, removed)

    def _ended(self, existing: set[str]) -> set[str]:
        """The accounts of those that are to have none any more."""
        strays = existing - self._wanted.keys() - self._refused - self._kept
        if not strays:
            return strays
        sorted_out = sort_strays(self._engine, strays)
        self._kept |= sorted_out.waiting | sorted_out.unknown
        if sorted_out.unnoted:
            note_coordinator_key(self._engine, sorted_out.unnoted, self._newest)
        return sorted_out.ended

    def _read_wanted(self) -> None:
        mark = change_mark(self._engine)
        wall_clock = time.time()
        if mark == self._mark and wall_clock < self._until:
            return
        found = read_holders(self._engine, wall_clock)
        self._wanted = {account_name(each.device, each.public_key): each for each in found.holders}
        self._mark, self._until = mark, found.until
        self._kept.clear()

    def _accounts(self, holders: dict[str, Holder]) -> Sequence[BrokerAccount]:
        fresh = [each.public_key for each in holders.values() if each.takes_part and each.coordinator_key is None]
        if fresh:
            note_coordinator_key(self._engine, fresh, self._newest)
            self._mark = None
        return list(self._with_passwords(holders))

    def _with_passwords(self, holders: dict[str, Holder]) -> Iterator[BrokerAccount]:
        for name, holder in holders.items():
            try:
                password = password_of(holder.public_key, self._key_behind(holder))
            except ConfigurationError as error:
                self._refused.add(name)
                remedy = f"broker-coordinator devices invite {holder.device} --again"
                logger.error(log_line("broker_account_failed", account=name, error=error, remedy=remedy))
                continue
            identifier = client_identifier(self._fleet, holder.device) if holder.takes_part else name
            yield BrokerAccount(name, password, identifier, holder.device, holder.takes_part)

    def _key_behind(self, holder: Holder) -> SigningKey:
        """The coordinator's key that a device's password follows from."""
        identifier = holder.coordinator_key or self._newest
        if (key := self._keys.get(identifier)) is None:
            raise ConfigurationError(
                f"its password follows from the coordinator's key {identifier.hex()}, which this process does not have:"
                " restart it if that is the newest (rotate-key); else that key was deleted from `key_file`"
            )
        return key
