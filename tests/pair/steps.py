"""What may happen next, as values, and how often each is drawn."""

from dataclasses import dataclass
from enum import Enum

from hypothesis import strategies as st

from tests.pair.coordinator import Accident
from tests.pair.wire import Direction, Fault

LARGEST_BATCH = 5


class Event(Enum):
    """What may happen to a device, or what an operator may do to it or to the task."""

    CONNECTS_AGAIN = "connects again"
    POWER_CUT = "power cut"
    WIPED = "wiped"
    REVOKED = "revoked"
    APPROVED = "approved"
    TASK_PAUSED = "task paused"
    TASK_RESUMED = "task resumed"


@dataclass(frozen=True, slots=True)
class Learns:
    """A round ends. Its version is `ahead` of the newest: -1 is old; 1, one that a restored coordinator has lost."""

    device: str
    ahead: int
    keeps_newest: bool
    disk_full: bool


@dataclass(frozen=True, slots=True)
class ArriveUp:
    """A batch arrives at the coordinator, which answers unless there is an accident."""

    picks: tuple[int, ...]
    accident: Accident | None


@dataclass(frozen=True, slots=True)
class ArriveDown:
    """Receipts arrive, of whichever device."""

    picks: tuple[int, ...]
    disk_full: bool


@dataclass(frozen=True, slots=True)
class WireFails:
    """See `Fault`."""

    direction: Direction
    fault: Fault
    pick: int


@dataclass(frozen=True, slots=True)
class MakeVersions:
    """The coordinator makes what versions are due."""

    accident: Accident | None


@dataclass(frozen=True, slots=True)
class Happens:
    """See `Event`."""

    device: str
    event: Event


@dataclass(frozen=True, slots=True)
class TimePasses:
    """So that something is due again."""

    seconds: float


Step = Learns | ArriveUp | ArriveDown | WireFails | MakeVersions | Happens | TimePasses

_DEVICES = st.sampled_from(["attic", "barn"])
_PICK = st.integers(0, 30)
"""Names any message on a lane: see `Lane`."""
_BATCH = st.lists(_PICK, min_size=1, max_size=LARGEST_BATCH).map(tuple)
_ACCIDENT = st.sampled_from([None, None, None, None, *Accident])
_DISK_FULL = st.sampled_from([False, False, False, True])
_EVENT = st.sampled_from([*Event, Event.APPROVED, Event.TASK_RESUMED])

_WEIGHTED = [
    *3 * [st.builds(Learns, _DEVICES, st.sampled_from([0, 0, 0, -1, 1]), st.booleans(), _DISK_FULL)],
    *3 * [st.builds(ArriveUp, _BATCH, _ACCIDENT)],
    *3 * [st.builds(ArriveDown, _BATCH, _DISK_FULL)],
    *2 * [st.builds(WireFails, st.sampled_from(Direction), st.sampled_from(Fault), _PICK)],
    st.builds(MakeVersions, _ACCIDENT),
    st.builds(Happens, _DEVICES, _EVENT),
    st.builds(TimePasses, st.floats(1.0, 700.0)),
]
# One strategy, not a rule for each: hypothesis leaves out half of the rules at a time, and then little ever arrives.
STEPS: st.SearchStrategy[Step] = st.sampled_from(_WEIGHTED).flatmap(lambda drawn: drawn)
