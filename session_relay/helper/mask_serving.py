"""What a mask helper is there for: it answers the coordinator's requests about sets of masked updates.

Nothing waits here on a disk but its claims: the coordinator asks again until it has an answer, and gets the same.
"""

import asyncio
import hashlib
import logging
import sqlite3
from collections import OrderedDict
from functools import partial

from edge_agent.core.outbox import OutboxRow
from edge_agent.shell.connection.link import LinkDownError
from edge_agent.shell.membership import Membership
from fleet_host.log_lines import log_line
from fleet_host.rate_limit import RateLimit
from fleet_host.seal import decrypted, require_tenseal
from fleet_protocol.errors import ProtocolError
from fleet_protocol.keys import read_verify_key
from fleet_protocol.kinds import MASK_REPLY, MaskReply, MaskRequest, Receipt, encode_payload
from fleet_protocol.limits import MAX_MASK_REFUSAL_CHARACTERS
from fleet_protocol.printable import printable
from secure_aggregation.helper.key_holder import KeyHolder
from secure_aggregation.helper.mask_helper import MaskHelper
from secure_aggregation.helper.set_checks import HelperPolicy, Roster
from secure_aggregation.messages import CohortSet, message_hash
from secure_aggregation.signatures import read_unverified
from session_relay.helper.configuration import MaskHelperSettings
from session_relay.helper.mask_claims import MaskClaims
from session_relay.helper.mask_limits import MaskLimits, question_of

logger = logging.getLogger(__name__)

MAX_WAITING_REQUESTS = 8
"""Of some cohorts: who is not answered is asked again."""
SAY_IGNORED_SECONDS = 60.0
"""Between two lines of the log about requests that come too often; `edgeflock-helper status` counts them all."""


def roster_of(settings: MaskHelperSettings) -> Roster:
    """The devices that this helper's owner knows.

    Raises:
        ConfigurationError: a key is no point of the curve.
    """
    return {
        name: read_verify_key(key, f"masks.roster.{name}", "`edge-agent key` on that device")
        for name, key in settings.roster.items()
    }


def key_holder_of(claims: MaskClaims) -> KeyHolder:
    """The key holder with these claims; its key is made at first.

    Raises:
        ConfigurationError: TenSEAL is not there, also where there is a key, which nothing would decrypt with; or the
            disk does not take a new key.
    """
    require_tenseal()
    secret, file = claims.encryption_key()
    return KeyHolder(hashlib.sha256(file).digest(), partial(decrypted, secret))


def reply_to(request: MaskRequest, helper: MaskHelper) -> MaskReply | None:
    """What a helper says to a request of its coordinator.

    None where it is no request, or the disk does not take the claim: nothing is said then.
    """
    asked = request.request
    try:
        set_hash = message_hash(read_unverified(asked.cohort_set, CohortSet))
    except ProtocolError as error:
        logger.warning(log_line("mask_request_malformed", reason=error))
        return None
    try:
        match request.step:
            case "unusable":
                return MaskReply(request.step, set_hash, unusable=helper.unusable(asked))
            case "sign":
                return MaskReply(request.step, set_hash, signed=(helper.sign(asked),))
            case "answer":
                return MaskReply(
                    request.step, set_hash, signed=(helper.answer(asked, request.signatures, request.ciphertext),)
                )
    except ProtocolError as error:
        return MaskReply(request.step, set_hash, refusal=printable(str(error)[:MAX_MASK_REFUSAL_CHARACTERS]))
    except sqlite3.Error as error:
        remedy = "make room on the disk of state_folder; the coordinator asks again"
        logger.error(log_line("mask_claim_failed", reason=error, remedy=remedy))
        return None


class MaskServing:
    """The duty of a mask helper (`edge_agent.shell.duty`). It computes in a thread, one request at a time."""

    def __init__(self, settings: MaskHelperSettings, member: Membership, claims: MaskClaims) -> None:
        self._member = member
        self._claims = claims
        self._roster = roster_of(settings)
        self._holder = key_holder_of(claims) if settings.key_holder else None
        self._policy = HelperPolicy(
            fewest_devices=settings.fewest_devices,
            fewest_per_weight=settings.fewest_devices,
            most_masked_entries=settings.most_masked_entries,
        )
        self._limits = MaskLimits(settings.most_masked_entries)
        self._said_ignored = RateLimit(SAY_IGNORED_SECONDS, 1)
        self._waiting: OrderedDict[tuple[str, bytes], MaskRequest] = OrderedDict()
        self._has_some = asyncio.Event()
        self.answered_requests = 0
        self.refused_requests = 0
        self.ignored_requests = 0

    def asked(self, request: MaskRequest) -> None:
        """The coordinator asks, or somebody repeats what it has asked."""
        if (question := question_of(request)) in self._waiting:
            self._waiting[question] = request
            return
        now = asyncio.get_running_loop().time()
        try:
            why = self._limits.why_ignored(request, now)
        except ProtocolError as error:
            why = str(error)
        if why is not None:
            self.ignored_requests += 1
            if self._said_ignored.allows(None, now):
                logger.warning(log_line("mask_request_ignored", step=request.step, reason=why))
            return
        if len(self._waiting) >= MAX_WAITING_REQUESTS:
            self._waiting.popitem(last=False)  # the oldest: the coordinator may not wait for it any more
        self._waiting[question] = request
        self._has_some.set()

    async def run(self) -> None:
        """Answer until cancelled."""
        while True:
            await self._has_some.wait()
            if not self._waiting:
                self._has_some.clear()
                continue
            _, request = self._waiting.popitem(last=False)
            reply = await asyncio.to_thread(self._reply_to, request)
            if reply is None:
                continue
            self._note(request, reply)
            try:
                await self._member.say(MASK_REPLY, encode_payload(reply))
            except LinkDownError:
                logger.info(log_line("mask_reply_not_sent", remedy="none needed: the coordinator asks again"))

    def _reply_to(self, request: MaskRequest) -> MaskReply | None:
        claims, coordinator = self._claims, self._member.identity.coordinator
        helper = MaskHelper(claims.key, coordinator, self._roster, self._policy, claims, holder=self._holder)
        return reply_to(request, helper)

    def _note(self, request: MaskRequest, reply: MaskReply) -> None:
        if reply.refusal:
            self.refused_requests += 1
            logger.warning(log_line("mask_request_refused", step=request.step, reason=reply.refusal))
            return
        self.answered_requests += 1
        logger.info(log_line("mask_request_answered", step=request.step, set=reply.set_hash[:8].hex()))

    def manifest_changed(self, task: str) -> None:
        """Versions don't matter here; nor does what follows."""

    def manifest_heard(self, task: str) -> None:
        """See `manifest_changed`."""

    def not_readable(self, task: str, why: str) -> None:
        """See `manifest_changed`."""

    def invited(self, task: str) -> None:
        """See `manifest_changed`."""

    def enrolled(self) -> None:
        """Requests come by themselves."""

    def not_enrolled(self, why: str) -> None:
        """It does not, or not yet."""
        logger.warning(log_line("helper_not_enrolled", reason=why))

    def retry_deferred_trigger(self) -> None:
        """See `manifest_changed`."""

    def answered(self, row: OutboxRow, receipt: Receipt) -> None:
        """See `manifest_changed`."""

    def waits_for_version(self, task: str) -> bool:
        """None is needed."""
        return False

    def relayed(self, data: bytes) -> None:
        """A mask helper has no sessions."""

    def connected(self) -> None:
        """See `relayed`."""

    def key_changed(self) -> None:
        """Requests are checked with the key that is pinned when they come."""

    def moved(self) -> None:
        """Requests come under the new shard, and are repeated until they are answered."""
