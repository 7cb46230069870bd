"""Gives the broker's roles the rules that an older edgeflock did not give them.

Each role is read once on each connection, the coordinator's own first, and only the rules that it lacks are added: so
it does not matter which edgeflock made it, nor whether somebody has put back the broker's file. Nothing is taken away,
and a rule that an operator has turned into a prohibition stays one.
"""

import logging
from collections.abc import Mapping, Sequence, Set
from itertools import islice

from broker_coordinator.distribution.dynamic_security import (
    COORDINATOR_ACCOUNT,
    DEVICES_ROLE,
    Answer,
    Rule,
    account_rules,
    add_rules,
    coordinator_rules,
    devices_rules,
    read_roles,
    topics_in,
)
from broker_coordinator.storage.broker_account_rows import Holder
from fleet_host.log_lines import log_line

READ_AT_ONCE = 100
"""Roles in one request: their rules make an answer of 45 KB."""
CHANGED_AT_ONCE = 3
"""Roles in one request. Mosquitto 2.0 writes its whole file for each rule, and serves nobody meanwhile."""

logger = logging.getLogger(__name__)


class BrokerRoles:
    """Asks for roles, and for rules that they lack, one request at a time."""

    def __init__(self, fleet: str, shard: str) -> None:
        self._fleet, self._shard = fleet, shard
        self._read: set[str] = set()
        self._asked: dict[str, list[Rule]] = {}
        self._lacking: dict[str, list[Rule]] = {}
        self._given: set[str] = set()
        self._completed = 0

    def connected(self) -> None:
        """What the broker has is not known any more."""
        self._read.clear()
        self._asked.clear()
        self._lacking.clear()

    def request(self, wanted: Mapping[str, Holder], existing: Set[str]) -> bytes | None:
        """The next request about the accounts that are `wanted` and `existing`, after the last one was answered."""
        roles = [COORDINATOR_ACCOUNT, DEVICES_ROLE, *(name for name in wanted if name in existing)]
        lacking = (name for name in roles if name in self._lacking)
        if given := {name: self._lacking.pop(name) for name in islice(lacking, CHANGED_AT_ONCE)}:
            self._given.update(given)
            self._read.difference_update(given)  # each is read again, to see that it has them
            return add_rules(given)
        unread = (name for name in roles if name not in self._read)
        if names := list(islice(unread, READ_AT_ONCE)):
            self._asked |= {name: self._rules(name, wanted) for name in names}
            self._read.update(names)
            return read_roles(names)
        if self._completed:
            logger.info(log_line("broker_rules_added", roles=self._completed))
            self._completed = 0
        return None

    def receive(self, answers: Sequence[Answer]) -> None:
        """Take the answer to a request.

        Raises:
            msgspec.MsgspecError: roles that are described in another way.
        """
        for name, found in topics_in(answers).items():
            if (rules := self._asked.pop(name, None)) is None:  # asked for on an earlier connection
                continue
            lacking = [rule for rule in rules if (rule.acltype, rule.topic) not in found]
            if not lacking:
                self._completed += name in self._given
                self._given.discard(name)
            elif name not in self._given:
                self._lacking[name] = lacking
            else:
                logger.error(
                    log_line(
                        "broker_account_failed",
                        account=name,
                        error=f"it was given rules and does not have them: {' '.join(rule.topic for rule in lacking)}",
                        remedy="see the broker's log; it is tried again after the coordinator's next start",
                    )
                )

    def _rules(self, role: str, wanted: Mapping[str, Holder]) -> list[Rule]:
        if role == COORDINATOR_ACCOUNT:
            return coordinator_rules()
        if role == DEVICES_ROLE:
            return devices_rules()
        holder = wanted[role]
        return account_rules(self._fleet, self._shard, holder.device, takes_part=holder.takes_part)
