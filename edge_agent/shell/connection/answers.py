"""Which receipts answer this device, and what is said where nobody answers, or somebody else is answered."""

import logging
import time
from collections.abc import Callable

from edge_agent.configuration import AgentConfiguration
from edge_agent.core.answers_awaited import AnswersAwaited
from edge_agent.core.control_messages import ControlMessages
from edge_agent.shell.connection.identity import Identity
from fleet_host.log_lines import log_line
from fleet_host.rate_limit import RateLimit
from fleet_protocol.envelope import digest
from fleet_protocol.kinds import Receipt

logger = logging.getLogger(__name__)

REPEAT_COMPLAINT_SECONDS = 3600.0
"""What stays wrong is said once in this time."""


class Answers:
    """`has_settled` says whether a payload with that digest has had its receipt before."""

    def __init__(
        self, configuration: AgentConfiguration, identity: Identity, has_settled: Callable[[bytes], bool]
    ) -> None:
        self._configuration = configuration
        self._identity = identity
        self._has_settled = has_settled
        self._control_messages = ControlMessages()
        self._awaited = AnswersAwaited()
        self._said = RateLimit(REPEAT_COMPLAINT_SECONDS, 2)

    def signed(self, control_message: bytes) -> None:
        """An envelope that is not of the outbox was signed: an enrolment, a request, a presence."""
        self._control_messages.sent(digest(control_message))

    def await_one(self) -> bool:
        """A message was published that the coordinator answers; whether it is the one with which its silence shows."""
        is_silent = self._awaited.sent()
        if is_silent and self._said.allows("no_receipts", time.monotonic()):
            logger.warning(
                log_line(
                    "no_receipts",
                    fleet=self._configuration.fleet,
                    shard=self._identity.shard,
                    device=self._configuration.device,
                    remedy="no coordinator answers: compare fleet and shard with coordinator.toml, and device with the"
                    " name in the certificate and the broker's access control list; see whether the coordinator runs",
                )
            )
        return is_silent

    def take(self, receipt: Receipt, *, is_ours: bool) -> bool:
        """Whether a receipt is news; `is_ours` where it is for a payload of the outbox or the enrolment."""
        if not (self._control_messages.answered(receipt.digest) or is_ours):
            self._note_repeated_or_foreign(receipt)
            return False
        self._awaited.answered()
        return True

    def is_for_newest(self, receipt: Receipt) -> bool:
        """Whether it answers the control message that was signed last."""
        return self._control_messages.is_newest(receipt.digest)

    def _note_repeated_or_foreign(self, receipt: Receipt) -> None:
        if receipt.digest in self._control_messages or self._has_settled(receipt.digest):
            return
        if self._awaited.foreign(receipt.digest) and self._said.allows("foreign_receipts", time.monotonic()):
            logger.error(
                log_line(
                    "foreign_receipts",
                    device=self._configuration.device,
                    remedy="the coordinator answers what this device has not sent: a second device has its name and"
                    " key, perhaps on a copied card: give that one its own; or somebody publishes in its name",
                )
            )
