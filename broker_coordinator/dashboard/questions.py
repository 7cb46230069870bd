"""What requests ask for, out of what strangers may write there: every value is bounded, or refused in words. Pure."""

from collections.abc import Mapping
from typing import Annotated, Final, TypeVar

import msgspec

from broker_coordinator.admission.fleet_view import DeviceState
from broker_coordinator.commands.invitations import HOURS, MOST_HOURS
from broker_coordinator.storage.device_pages import SORTED_BY
from fleet_protocol.configuration import Name
from fleet_protocol.errors import ConfigurationError, Reason
from fleet_protocol.limits import MAX_SEQUENCE
from fleet_protocol.printable import printable

MAX_ROWS: Final = 200
"""Of one page."""
MAX_PLACE: Final = 1_000_000_000
"""Of the first row of a page: beyond any table's end."""
MAX_SEARCH_CHARACTERS: Final = 100
MAX_SHOWN_CHARACTERS: Final = 80

Rows = Annotated[int, msgspec.Meta(ge=1, le=MAX_ROWS)]
Number = Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQUENCE)]


class DevicesAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page of the devices."""

    first: Annotated[int, msgspec.Meta(ge=0, le=MAX_PLACE)] = 0
    rows: Rows = 50
    search: Annotated[str, msgspec.Meta(max_length=MAX_SEARCH_CHARACTERS)] = ""
    state: DeviceState | None = None
    sort: str = "name"
    descending: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for an unknown `sort`."""
        if self.sort not in SORTED_BY:
            raise ValueError(f"sort {self.sort[:MAX_SHOWN_CHARACTERS]!r} is none of: {', '.join(SORTED_BY)}")


class VersionsAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Versions of a task, the last ones below `before`."""

    rows: Rows = 100
    before: Number = MAX_SEQUENCE


class RefusedAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Refused payloads, the last ones before a place in the journal."""

    rows: Rows = 50
    before: Number = MAX_SEQUENCE
    device: Name | None = None
    reason: Reason | None = None


class ModelAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model to use: the mean of versions up to `version`, or that one by itself."""

    version: Number | None = None
    single: bool = False


class Login(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The token that somebody has typed."""

    token: Annotated[str, msgspec.Meta(max_length=1000)]


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a change that needs no words."""


class Approval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose key is let in: its id or the whole public key, as `edge-agent key` prints it on the device."""

    key: Annotated[str, msgspec.Meta(max_length=200)]


class InvitationWanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For which device, and how long it counts."""

    name: Name
    hours: Annotated[int, msgspec.Meta(ge=1, le=MOST_HOURS)] = HOURS
    again: bool = False


class Rollback(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """To which version."""

    version: Number


Question = TypeVar("Question", bound=msgspec.Struct)


def read_query(query: Mapping[str, str], shape: type[Question]) -> Question:
    """The query of an address as `shape`.

    Raises:
        ConfigurationError: naming the value, and what may stand there.
    """
    try:
        return msgspec.convert(dict(query), shape, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"the address can't be answered: {printable(str(error))}") from error


def read_body(body: bytes, shape: type[Question]) -> Question:
    """The body of a change as `shape`.

    Raises:
        ConfigurationError: naming the value, and what may stand there.
    """
    if b"\\u0000" in body:
        raise ConfigurationError("the request can't be read: no name has the character NUL")
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the request can't be read: {printable(str(error))}") from error
