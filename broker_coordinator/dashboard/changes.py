"""What pages may change: the functions that the commands of the same name call, each logged with who asked for it."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from broker_coordinator.commands.devices import approve_device
from broker_coordinator.commands.gossip_told import require_versions
from broker_coordinator.commands.invitations import make_invitation
from broker_coordinator.commands.rollback import roll_back
from broker_coordinator.configuration import CoordinatorConfiguration
from broker_coordinator.dashboard.access import Visitor
from broker_coordinator.dashboard.questions import Approval, InvitationWanted, Nothing, Rollback
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_host.log_lines import log_line
from fleet_protocol.device_invitation import write_invitation

Done = Mapping[str, object]
Do = Callable[[Journal, CoordinatorConfiguration, str, Any], Done]
"""Takes the subject, of the address, and the body."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """One kind of change: what the log calls it, what its body holds, and what does it."""

    name: str
    body: type[msgspec.Struct]
    do: Do


def _pause(journal: Journal, _: CoordinatorConfiguration, task: str, __: Nothing) -> Done:
    require_versions(TaskRegistry(journal.engine), task, "tasks pause")
    return {"paused": TaskRegistry(journal.engine).set_paused(task, paused=True).paused}


def _resume(journal: Journal, _: CoordinatorConfiguration, task: str, __: Nothing) -> Done:
    return {"paused": TaskRegistry(journal.engine).set_paused(task, paused=False).paused}


def _roll_back(journal: Journal, configuration: CoordinatorConfiguration, task: str, wanted: Rollback) -> Done:
    made = roll_back(journal, configuration, task, wanted.version)
    return {"version": made.number, "restored": made.restored}


def _approve(journal: Journal, _: CoordinatorConfiguration, device: str, approval: Approval) -> Done:
    return {"state": approve_device(DeviceRegistry(journal.engine), device, approval.key.strip()).state.value}


def _revoke(journal: Journal, _: CoordinatorConfiguration, device: str, __: Nothing) -> Done:
    return {"state": DeviceRegistry(journal.engine).revoke(device).state.value}


def _invite(journal: Journal, configuration: CoordinatorConfiguration, _: str, wanted: InvitationWanted) -> Done:
    made = make_invitation(journal, configuration, wanted.name, hours=wanted.hours, again=wanted.again)
    return {"device": made.device, "expires": made.expires, "invitation": write_invitation(made)}


CHANGES: Mapping[str, Change] = {
    "/api/tasks/{subject}/pause": Change("pause", Nothing, _pause),
    "/api/tasks/{subject}/resume": Change("resume", Nothing, _resume),
    "/api/tasks/{subject}/rollback": Change("rollback", Rollback, _roll_back),
    "/api/devices/{subject}/approve": Change("approve", Approval, _approve),
    "/api/devices/{subject}/revoke": Change("revoke", Nothing, _revoke),
    "/api/invitations": Change("invite", InvitationWanted, _invite),
}
"""By the address that is posted to."""


def make_change(
    change: Change, configuration: CoordinatorConfiguration, subject: str, body: msgspec.Struct, visitor: Visitor
) -> Done:
    """Make one, as the command of its name does; a running coordinator notices. `subject` is empty where the body names
    it.

    Raises:
        ConfigurationError: it can't be made; in words.
        ProtocolError: a name or a key is none.
        JournalUnavailableError: the database can't be written now.
    """
    with Journal.open(configuration.journal()) as journal:
        done = change.do(journal, configuration, subject, body)
    of = subject or str(done.get("device", ""))
    logger.info(log_line("dashboard_changed", change=change.name, of=of, by=visitor.name, address=visitor.address))
    return done
