"""What the coordinator answers to a decision. Pure: `now` is in seconds on any one clock."""

from collections import OrderedDict
from dataclasses import replace

import msgspec

from broker_coordinator.admission.decisions import Accepted, AnsweredBefore, Decision, Enrolled, Refused, Repeated
from broker_coordinator.admission.fleet_view import Decided, DeviceState, FleetView, decided_of
from broker_coordinator.distribution.signed_messages import MessageSigner, Publication
from fleet_host.rate_limit import RateLimit, TokenBucket
from fleet_protocol.errors import Reason
from fleet_protocol.keys import KeyRing, key_id

UNVERIFIED_RECEIPT_INTERVAL_SECONDS = 5.0
"""Per device topic: a forger makes the coordinator publish no more often than this."""

MAX_UNVERIFIED_RECEIPTS_PER_INTERVAL = 500
"""Over all topics: inventing device names does not help the forger either."""

RECEIPTS_REMEMBERED = 10_000
"""Of the last payloads that were decided, for repeats: half a kilobyte each."""

REPEATS = TokenBucket(5.0, 2)
"""How often a remembered receipt is published again. An agent repeats a payload after ten seconds, or at once when it
has connected again; whoever replays its messages makes no more of them."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What a receipt says: accepted where there is no `reason`. `verified` as in `Refused`; `final` where the answer to
    the same message will always be the same; `trusted_key` as in `Enrolled`. `task` is that of a journalled message.
    """

    device: str
    digest: bytes
    reason: Reason | None = None
    detail: str = ""
    verified: bool = True
    final: bool = False
    trusted_key: bytes = b""
    task: str = ""


def answer_to(decision: Decision) -> Answer | None:
    """The answer to one message; None where it gets no receipt, or the one that it got a moment ago."""
    match decision:
        case Accepted(device, header, envelope_digest=digest):
            return _answer_of(device, decided_of(header.kind, digest), header.task)
        case Repeated(device, _, outcome, task):
            return _answer_of(device, outcome, task)
        case Enrolled(device, digest, trusted_key=trusted) if device.state is DeviceState.APPROVED:
            return Answer(device.name, digest, trusted_key=trusted)
        case Enrolled(device, digest):
            return Answer(device.name, digest, Reason.UNKNOWN_KEY, f"{device.name} is recorded and awaits approval")
        case Refused(str(device), reason, detail, digest, verified, answered=True, header=header, trusted_key=trusted):
            task = header.task if header else ""
            return Answer(device, digest, reason, detail, verified, header is not None, trusted, task)
    return None


def _answer_of(device: str, decided: Decided, task: str) -> Answer:
    is_final = decided.reason is not Reason.AWAITS_COHORT
    return Answer(device, decided.digest, decided.reason, decided.detail, final=is_final, task=task)


class RecentReceipts:
    """The receipts of the last payloads that were decided, by the digest of their messages."""

    def __init__(self, maximum: int = RECEIPTS_REMEMBERED) -> None:
        self._maximum = maximum
        self._found: OrderedDict[bytes, tuple[Publication, float]] = OrderedDict()

    def __contains__(self, digest: object) -> bool:
        return digest in self._found

    def note(self, digest: bytes, receipt: Publication, now: float) -> None:
        """Remember a receipt that is published now."""
        self._found[digest] = receipt, now + REPEATS.interval_seconds
        if len(self._found) > self._maximum:
            self._found.popitem(last=False)

    def again(self, digest: bytes, now: float) -> Publication | None:
        """The same receipt, or None where it was published too often."""
        receipt, full_at = self._found[digest]
        after = REPEATS.after(full_at, now)
        if after is None:
            return None
        self._found[digest] = receipt, after
        return receipt


class Receipts:
    """Writes receipts, and few of them where a signature did not verify or the same message comes again.

    `followed` are the keys that the signer's has followed: they sign for whoever can't know the newer one yet.
    """

    def __init__(self, signer: MessageSigner, followed: KeyRing = ()) -> None:
        self._signer = signer
        self._earlier = {key_id(key.verify_key): replace(signer, key=key) for key in followed}
        self._unverified = RateLimit(UNVERIFIED_RECEIPT_INTERVAL_SECONDS, MAX_UNVERIFIED_RECEIPTS_PER_INTERVAL)
        self.recent = RecentReceipts()

    def receipt(self, decision: Decision, view: FleetView, now: float) -> Publication | None:
        """The signed answer to a decision that `view` reflects; None where there is none."""
        answer = answer_to(decision)
        if answer is None:
            return self.recent.again(decision.envelope_digest, now) if isinstance(decision, AnsweredBefore) else None
        if answer.final and answer.digest in self.recent:  # twice in one batch
            return self.recent.again(answer.digest, now)
        if not (answer.verified or self._unverified.allows(answer.device, now)):
            return None
        signer = self._earlier.get(answer.trusted_key, self._signer)
        receipt = signer.receipt(
            answer.device,
            answer.digest,
            reason=answer.reason,
            detail=answer.detail,
            highest_sequence=view.highest_sequence(answer.device),
            newest_boot=view.newest_boot(answer.device),
            cluster=view.cluster(answer.task, answer.device),
        )
        if answer.final:
            self.recent.note(answer.digest, receipt, now)
        return receipt
