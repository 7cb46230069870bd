"""What the coordinator answers to a decision. Pure: `now` is in seconds on any one clock."""

from dataclasses import dataclass

from broker_coordinator.admission.decisions import Accepted, Decision, Enrolled, Refused, Repeated
from broker_coordinator.admission.fleet_view import DeviceState, FleetView
from broker_coordinator.distribution.signed_messages import MessageSigner, Publication
from fleet_host.rate_limit import RateLimit
from fleet_protocol.errors import Reason

UNVERIFIED_RECEIPT_INTERVAL_SECONDS = 5.0
"""Per device topic: a forger makes the coordinator publish no more often than this."""

MAX_UNVERIFIED_RECEIPTS_PER_INTERVAL = 500
"""Over all topics: inventing device names does not help the forger either."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receipt says: accepted where there is no `reason`. `verified` as in `Refused`."""

    device: str
    digest: bytes
    reason: Reason | None = None
    detail: str = ""
    verified: bool = True


def answer_to(decision: Decision) -> Answer | None:
    """The answer to one message; None where it gets no receipt."""
    match decision:
        case Accepted(device=device, envelope_digest=digest):
            return Answer(device, digest)
        case Repeated(device, _, outcome):
            return Answer(device, outcome.digest, outcome.reason, outcome.detail)
        case Enrolled(device, digest) if device.state is DeviceState.APPROVED:
            return Answer(device.name, digest)
        case Enrolled(device, digest):
            return Answer(device.name, digest, Reason.UNKNOWN_KEY, f"{device.name} is recorded and awaits approval")
        case Refused(str(device), reason, detail, digest, verified, answered=True):
            return Answer(device, digest, reason, detail, verified)
    return None


class Receipts:
    """Writes receipts, and few of them where a signature did not verify."""

    def __init__(self, signer: MessageSigner) -> None:
        self._signer = signer
        self._unverified = RateLimit(UNVERIFIED_RECEIPT_INTERVAL_SECONDS, MAX_UNVERIFIED_RECEIPTS_PER_INTERVAL)

    def receipt(self, decision: Decision, view: FleetView, now: float) -> Publication | None:
        """The signed answer to a decision that `view` reflects; None where there is none."""
        answer = answer_to(decision)
        if answer is None or not (answer.verified or self._unverified.allows(answer.device, now)):
            return None
        return self._signer.receipt(
            answer.device,
            answer.digest,
            reason=answer.reason,
            detail=answer.detail,
            highest_sequence=view.highest_sequence(answer.device),
            newest_boot=view.newest_boot(answer.device),
        )
