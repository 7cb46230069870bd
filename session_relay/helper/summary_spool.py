"""What a helper says of devices' activations, on its way into the outbox."""

import logging
import sqlite3
from collections.abc import Callable

from edge_agent.core.outbox import OutboxRow, SignRow
from edge_agent.shell.storage.device_database import UNNUMBERED, DeviceDatabase
from edge_agent.shell.versions.version_follower import ReadyVersion
from fleet_host.log_lines import log_line
from fleet_protocol.activation_plan import LEAST_ROWS, summary_values
from fleet_protocol.kinds import ACTIVATION_SUMMARY, ActivationSummary, PayloadKind, encode_payload
from fleet_protocol.kinds.activation_summary import FLOAT_BYTES
from fleet_protocol.task_description import TaskDescription
from session_relay.helper.compute_contract import Seen

logger = logging.getLogger(__name__)


class SummarySpool:
    """`address` and `sign` are as for any payload in the outbox; it is of another device's samples, so `address` is one
    that encrypts whatever this helper's `encrypt_updates` says.
    """

    def __init__(
        self, database: DeviceDatabase, *, address: Callable[[PayloadKind], tuple[int, bytes]], sign: SignRow
    ) -> None:
        self._database = database
        self._address = address
        self._sign = sign

    def put(self, version: ReadyVersion, device: str, seen: Seen) -> bool:
        """Let it wait, if it is of enough samples; whether it does. What a full disk keeps out is lost and said: the
        device's next session tells the same.
        """
        task = version.description
        if not is_summary(seen, task):
            return False
        kind, recipient = self._address(ACTIVATION_SUMMARY)
        payload = encode_payload(ActivationSummary(device, seen.rows, seen.mean))
        row = OutboxRow(
            UNNUMBERED,
            kind,
            task.task,
            version.bundle,
            version.number,
            recipient,
            payload,
            generation=version.generation,
        )
        try:
            return self._database.spool_beside(row, self._sign)
        except (sqlite3.Error, OSError) as error:
            remedy = "make room on the disk of state_folder; the device's next session tells the same"
            logger.error(log_line("summary_lost", task=task.task, device=device, reason=error, remedy=remedy))
            return False


def is_summary(seen: Seen, task: TaskDescription) -> bool:
    """Whether it is a mean as the task asks for: what a bundle may have made of the child that says it is not sent."""
    if task.clusters is None or not task.clusters.activations or task.split is None:
        return False
    return seen.rows >= LEAST_ROWS and len(seen.mean) == FLOAT_BYTES * summary_values(task.clusters, task.split)
