"""Invitations as admission reads them: whether a device that enrols has one, and may still use it. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from fleet_protocol.device_invitation import proves_invitation
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import VerifyKey, key_id
from fleet_protocol.kinds import Enrolment


class InvitationState(StrEnum):
    """Whether an invitation still admits a device."""

    OPEN = "open"
    SPENT = "spent"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Invited:
    """One invitation: for whom, the public half of its token, and until when, in seconds since 1970.

    `replaces`: an operator has said that the device may have another key than before. `refused` counts enrolments that
    named its device and were refused for what they showed; `last_refusal` says why the last one was. `coordinator_key`
    is the id of the one that it names; empty where nobody has noted it.
    """

    device: str
    public_key: VerifyKey
    expires: int
    state: InvitationState = InvitationState.OPEN
    replaces: bool = False
    refused: int = 0
    last_refusal: str = ""
    coordinator_key: bytes = b""

    @property
    def identifier(self) -> bytes:
        """What names it in an enrolment, and in the operator's commands."""
        return key_id(self.public_key)


def check_invitation(enrolment: Enrolment, invited: Invited | None, name: str, topic: str, key: VerifyKey) -> None:
    """Refuse an enrolment of the device `name`, sent on `topic` and signed with `key`, whose invitation admits nobody.

    Raises:
        ProtocolError: `BAD_INVITATION`.
    """
    ask = f"ask the operator for a new one: broker-coordinator devices invite {name}"
    if (
        invited is None
        or invited.device != name
        or not proves_invitation(invited.public_key, enrolment.proof, topic, key)
    ):
        raise ProtocolError(
            Reason.BAD_INVITATION, f"{name} shows no invitation that this coordinator has given for it; {ask}"
        )
    if invited.state is not InvitationState.OPEN:
        raise ProtocolError(
            Reason.BAD_INVITATION,
            f"invitation {invited.identifier.hex()} for {name} is {invited.state.value}, and key"
            f" {key_id(key).hex()} is not the one that used it; {ask}",
        )
