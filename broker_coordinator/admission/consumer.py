"""What a consumer is: all that the coordinator knows of one kind of payload. `broker_coordinator.consumers` has them.

A payload of a kind that is not journalled is decided on, and that is all (`ControlConsumer`). One of a journalled kind
takes this way (`JournalledConsumer`):

    payload -> admit -> facts, journalled beside the message -> item -> partial, which adds -> finish -> the next state

Each task has exactly one kind whose states are the versions of its weights (`VersionConsumer`), the one that its
description names with `versions_from`. Any other such kind is refused for that task; kinds whose states are bytes are
taken beside it. So which payloads made a version follows from the task, and `tasks verify` works for every kind.

docs/payload-kinds.md walks through an example.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from broker_coordinator.admission.decisions import Decision
from broker_coordinator.admission.fleet_view import Device, FleetView
from broker_coordinator.admission.overlay import Copyable
from broker_coordinator.admission.parsed_message import ParsedMessage
from broker_coordinator.admission.settings import AdmissionSettings
from broker_coordinator.aggregation.server_state import Remembered, ServerState
from broker_coordinator.aggregation.strategies import Recall
from fleet_protocol.envelope import Header
from fleet_protocol.keys import VerifyKey
from fleet_protocol.kinds import PayloadKind, Query
from fleet_protocol.task_description import TaskDescription
from secure_aggregation.coordinator import OpenCohort

Payload = TypeVar("Payload", bound=msgspec.Struct)
Facts = TypeVar("Facts", bound=msgspec.Struct)
Item = TypeVar("Item")
State = TypeVar("State")
Partial = TypeVar("Partial")


@dataclass(frozen=True, slots=True)
class Authentic:
    """A message whose signature verified; `device` is its sender, new where it enrols for the first time."""

    device: Device
    parsed: ParsedMessage


def _whichever_is_newest(_payload: Any, _view: FleetView) -> bytes:
    return b""


@dataclass(frozen=True, slots=True)
class ControlConsumer(Generic[Payload]):
    """Of a kind that is not journalled.

    `admit` raises ProtocolError where the message is refused; a refusal is told to the sender if `answered`.
    `named_key` reads the sender's key from an enrolment; `trusted_key` says which key of the coordinator the sender
    expects the answer from (`Enrolled`).
    """

    kind: PayloadKind
    admit: Callable[[Payload, Authentic, FleetView, AdmissionSettings], Decision]
    answered: bool = False
    named_key: Callable[[Payload], VerifyKey] | None = None
    trusted_key: Callable[[Payload, FleetView], bytes] = _whichever_is_newest


class Offered(msgspec.Struct, Generic[Payload], frozen=True, gc=False):
    """A payload of a journalled kind that passed every check that is the same for all kinds, or that is journalled.

    `staleness` is how many versions of the task were made since the header's `base_version`. `decoded` is what
    `decode_together` has made of the payload, `memory` what `remember` has noted of earlier ones; or they are None.
    `from_helper`: an operator lets the sender run blocks of a task's `split` for devices. `queries` are those that are
    open about the task's samples, by their numbers. `cluster` is the one that the sender is in; None of a task without
    clusters. `cohort` is the one of the task that is open, and `key` the sender's; None where it is journalled.
    """

    device: str
    header: Header
    payload: Payload
    task: TaskDescription
    staleness: int
    decoded: Any = None
    memory: Any = None
    from_helper: bool = False
    queries: Mapping[int, Query] = {}
    cluster: int | None = None
    cohort: OpenCohort | None = None
    key: VerifyKey | None = None


class Admitted(msgspec.Struct, Generic[Facts, Item], frozen=True, gc=False):
    """`facts` are journalled beside the message, `item` is what `partial` takes. `held_by` is the number of what holds
    the payload from the start, where that is not an aggregate that it waits for.
    """

    facts: Facts
    item: Item
    held_by: int | None = None


def _remember_nothing_of_it(_memory: Any, _device: str, _facts: Any, _task: TaskDescription) -> None:
    pass


@dataclass(frozen=True, slots=True)
class JournalledConsumer(Generic[Payload, Facts, Item, State, Partial]):
    """Of a journalled kind. Every function is pure. A state is bytes, b"" before the first aggregate.

    `admit` checks what is in the payload, and raises ProtocolError where it can't be aggregated: whatever it lets
    through, the other functions can apply; for what they raise, it is set aside (`serving.set_aside`). Its facts are
    journalled as JSON: their numbers are finite. `item` makes of a journalled payload and its facts what `admit` made
    of it then.

    An aggregate takes `buffer_size` items, in journal order: state = finish(state, partial(state, items)). Partials
    add, and that of no items adds nothing.

    `decode_together` decodes several payloads at once where that is faster; None for those that `admit` shall decode.
    `memory` makes an empty memory of a task, and `remember` notes in it the facts of an admitted payload with its
    device; `admit` is given what is noted so far. After a restart these are the last facts of each of the last devices.
    """

    kind: PayloadKind
    facts: type[Facts]
    admit: Callable[[Offered[Payload]], Admitted[Facts, Item]]
    item: Callable[[Offered[Payload], Facts], Item]
    buffer_size: Callable[[TaskDescription], int]
    partial: Callable[[State, Sequence[Item], TaskDescription], Partial]
    finish: Callable[[State, Partial, TaskDescription], State]
    decode_together: Callable[[Sequence[Payload], TaskDescription], Sequence[Any]] | None = None
    memory: Callable[[], Copyable] | None = None
    remember: Callable[[Any, str, Facts, TaskDescription], None] = _remember_nothing_of_it

    def next_state(self, state: State, items: Sequence[Item], task: TaskDescription) -> State:
        """The state that follows when all `items` are aggregated at once."""
        return self.finish(state, self.partial(state, items, task), task)


def _recall_nothing(_: TaskDescription) -> Recall:
    return Recall.NOTHING


def _take_place(_: msgspec.Struct) -> bool:
    return True


def _remember_nothing(_state: ServerState, _items: Iterable[Any], _task: TaskDescription) -> Remembered:
    return {}


@dataclass(frozen=True, slots=True)
class VersionConsumer(JournalledConsumer[Payload, Facts, Item, ServerState, Partial]):
    """Of a journalled kind of which an aggregate is a version: `finish` gives the state that is the next one.

    Partials of single items, added in order, are that of all of them to the last bit: `tasks verify` adds them so.

    The journal has a state's weights and moments, but not what it remembers of earlier versions. At a start,
    `remembered` makes that anew from the items that `recall` names, bit for bit as `finish` had left it; from no items,
    it gives what remains after a rollback. `loss` reads a device's loss in training out of the facts, for people to
    watch; None where they tell none. A payload whose facts don't `take_place` goes along with those that do, and counts
    for no `buffer_size`.
    """

    recall: Callable[[TaskDescription], Recall] = _recall_nothing
    remembered: Callable[[ServerState, Iterable[Item], TaskDescription], Remembered] = _remember_nothing
    loss: Callable[[Facts], float | None] | None = None
    take_place: Callable[[Facts], bool] = _take_place


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleConsumer(JournalledConsumer[Payload, Facts, Item, bytes, Partial]):
    """Of a journalled kind whose aggregate is the scale that a task awaits, and so begins its next generation.

    No `buffer_size` decides when it is made, but how many of the fleet's devices have sent something, and how long ago:
    `serving.awaited_scale`. `devices` counts the devices behind some items; `rescaled` is the task with that scale.
    """

    devices: Callable[[Iterable[Item]], int]
    rescaled: Callable[[TaskDescription, bytes], TaskDescription]


@dataclass(frozen=True, slots=True)
class AnswerConsumer(JournalledConsumer[Payload, Facts, Item, State, Partial]):
    """Of a journalled kind that answers a query, which holds the payload from the start (`Admitted.held_by`).

    It is made from samples and not from a version: so it is never stale, nor of another generation.
    """


AnyVersionConsumer = VersionConsumer[Any, Any, Any, Any]
AnyJournalledConsumer = JournalledConsumer[Any, Any, Any, Any, Any]
Consumer = ControlConsumer[Any] | AnyJournalledConsumer
