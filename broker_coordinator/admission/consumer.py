"""What a consumer is: all that the coordinator knows of one kind of payload. `broker_coordinator.consumers` has them.

A payload of a kind that is not journalled is decided on, and that is all. Those of a journalled kind wait in the
journal until there are enough of them for an aggregate:

    state = finish(state, partial(state, items))

Partials add, so the items of one aggregate may be split in any way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from broker_coordinator.admission.decisions import Decision
from broker_coordinator.admission.fleet_view import Device, FleetView
from broker_coordinator.admission.parsed_message import ParsedMessage
from broker_coordinator.admission.policy import AdmissionPolicy
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.envelope import Header
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import VerifyKey
from fleet_protocol.kinds import PayloadKind

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


@dataclass(frozen=True, slots=True)
class ControlConsumer(Generic[Payload]):
    """Of a kind that is not journalled.

    `admit` raises ProtocolError where the message is refused; a refusal is told to the sender if `answered`.
    `named_key` reads the sender's key from an enrolment.
    """

    kind: PayloadKind
    admit: Callable[[Payload, Authentic, FleetView, AdmissionPolicy], Decision]
    answered: bool = False
    named_key: Callable[[Payload], VerifyKey] | None = None


class Offered(msgspec.Struct, Generic[Payload], frozen=True, gc=False):
    """A payload of a journalled kind that passed every check that is the same for all kinds, or that is journalled.

    `staleness` is how many versions of the task were made since the header's `base_version`. `decoded` is what
    `decode_together` has made of the payload, `memory` what `remember` has made of earlier ones; None where nothing is.
    """

    device: str
    header: Header
    payload: Payload
    task: TaskDescription
    staleness: int
    decoded: Any = None
    memory: Any = None


class Admitted(msgspec.Struct, Generic[Facts, Item], frozen=True, gc=False):
    """`facts` are journalled beside the message, `item` is what `partial` takes."""

    facts: Facts
    item: Item


class RememberedError(ProtocolError):
    """A refusal whose `facts` the consumer remembers nevertheless."""

    def __init__(self, reason: Reason, detail: str, facts: msgspec.Struct) -> None:
        super().__init__(reason, detail)
        self.facts = facts


@dataclass(frozen=True, slots=True)
class JournalledConsumer(Generic[Payload, Facts, Item, State, Partial]):
    """Of a journalled kind. Every function is pure.

    `admit` checks what is in the payload, and raises ProtocolError where it can't be aggregated. Its facts are
    journalled as JSON: their numbers are finite. `item` makes of a journalled payload and its facts what `admit` made
    of it then. An aggregate takes `buffer_size` items, in journal order.

    With `makes_versions`, an aggregate is the task's next version and a state is a ServerState. Any other kind's state
    is bytes, b"" before the first aggregate.

    `decode_together` decodes several payloads at once where that is faster; None for those that `admit` shall decode.
    `remember` folds the facts of admitted payloads, in their order, into the `memory` that `admit` is given.
    """

    kind: PayloadKind
    facts: type[Facts]
    admit: Callable[[Offered[Payload]], Admitted[Facts, Item]]
    item: Callable[[Offered[Payload], Facts], Item]
    buffer_size: Callable[[TaskDescription], int]
    partial: Callable[[State, Sequence[Item], TaskDescription], Partial]
    finish: Callable[[State, Partial, TaskDescription], State]
    makes_versions: bool = False
    decode_together: Callable[[Sequence[Payload], TaskDescription], Sequence[Any]] | None = None
    remember: Callable[[Any, Facts, TaskDescription], Any] | None = None

    def next_state(self, state: State, items: Sequence[Item], task: TaskDescription) -> State:
        """The state that follows when all `items` are aggregated at once."""
        return self.finish(state, self.partial(state, items, task), task)


Consumer = ControlConsumer[Any] | JournalledConsumer[Any, Any, Any, Any, Any]
