"""What the ends of sessions tell the programs that hold them, and what they have to publish. Pure."""

from dataclasses import dataclass
from typing import TypeAlias

from fleet_protocol.cluster_plan import NO_CLUSTER


@dataclass(frozen=True, slots=True)
class Outgoing:
    """To be published on the party's own topic: a signed message at QoS 1, a frame at QoS 0."""

    data: bytes
    at_least_once: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a device wants blocks run of: those of `cut`, in a task by the SHA-256 of its `task.json` (32 bytes). It
    trains on so many `samples`; 0: it does not say. `without` are the names of helpers that it does without, `cluster`
    is whose copy of the blocks it trains.
    """

    task: str
    bundle: bytes
    cut: str
    base_version: int
    generation: int = 0
    samples: int = 0
    without: tuple[str, ...] = ()
    cluster: int = NO_CLUSTER


@dataclass(frozen=True, slots=True)
class Granted:
    """A helper has taken the session: requests can be sent."""

    helper: str


@dataclass(frozen=True, slots=True)
class Refused:
    """There is no session; it may be tried again after so many seconds."""

    reason: str
    detail: str
    retry_seconds: int


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to request `number`."""

    number: int
    message: bytes


@dataclass(frozen=True, slots=True)
class Moved:
    """The helper is gone, and with it what was not answered: open another session, at once."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over, and what was not answered is lost."""

    reason: str
    detail: str


DeviceEvent: TypeAlias = Granted | Refused | Answered | Moved | Ended


@dataclass(frozen=True, slots=True)
class Asked:
    """A device asks this helper for a session: grant or refuse it."""

    session: bytes
    device: str
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Requested:
    """A device's request, which comes once."""

    session: bytes
    number: int
    message: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """A session is over; answers to what it has asked are not sent any more."""

    session: bytes
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class OfferRefused:
    """The relay sends this helper no devices, as the coordinator does not allow it as one. Offers go on."""

    reason: str
    detail: str


HelperEvent: TypeAlias = Asked | Requested | Closed | OfferRefused
