"""Requests of steps as a helper takes them: checked against the session they come from, and grouped. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from fleet_protocol.codec.activations import Activations, unpack_rows
from fleet_protocol.errors import ProtocolError
from fleet_protocol.limits import MAX_PROBLEM_CHARACTERS
from fleet_protocol.sessions.steps import StepAnswer, StepRequest
from fleet_protocol.split_plan import Cut, SplitPlan, WireFormat
from session_relay.helper.core.kept_passes import PassKey

Direction = Literal["forward", "backward"]

MOST_ROWS_AT_ONCE: Final = 1024
"""Of several requests that are computed together."""


class StepRefusedError(Exception):
    """A request that is not answered with values; the words are for the device."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and the session it came in."""

    session: bytes
    request: StepRequest


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A request whose `values` f32[rows, ...] are finite and of the right shape; `place` is where its answer goes."""

    place: int
    key: PassKey
    request: StepRequest
    values: Activations


def read_request(place: int, asked: Asked, plan: SplitPlan, cut: Cut, batch_size: int) -> ReadRequest:
    """The request with its values, if a session of this cut may ask for it.

    Raises:
        StepRefusedError: it asks for other blocks, more rows or another format, or its values are not what they should.
    """
    request = asked.request
    first, end = request.first, request.end
    if not any(start <= first < end <= stop for start, stop in cut.helper):
        raise StepRefusedError(f"blocks {first} to {end - 1} are not the helper's in cut {cut.name} ({cut.helper})")
    if request.rows > batch_size:
        raise StepRefusedError(f"{request.rows} rows, the task's mini-batches have at most {batch_size}")
    if request.wire != (wire := _wire(plan, request)):
        raise StepRefusedError(f"{request.direction} passes of this task travel as {wire}, not {request.wire}")
    shape = plan.blocks[first - 1 if request.direction == "forward" else end - 1].output_shape
    try:
        values = unpack_rows(request.packed, request.wire, request.rows, shape)
    except ProtocolError as error:
        raise StepRefusedError(str(error)) from error
    return ReadRequest(place, PassKey(asked.session, request.step, first, end), request, values)


def groups(requests: Iterable[ReadRequest], direction: Direction, alone: frozenset[int]) -> Iterator[list[ReadRequest]]:
    """The requests of one direction, those together that are computed at once: what passes through the same blocks to
    the same end. What passes through a block in `alone` is computed by itself.
    """
    waiting: dict[tuple[int, int, bool], list[ReadRequest]] = {}
    for each in requests:
        request = each.request
        if request.direction != direction:
            continue
        alike = waiting.setdefault((request.first, request.end, request.update), [])
        fits = alone.isdisjoint(range(request.first, request.end))
        if alike and not (fits and sum(len(other.values) for other in alike) + request.rows <= MOST_ROWS_AT_ONCE):
            yield alike.copy()
            alike.clear()
        alike.append(each)
    yield from waiting.values()


def refusal(request: StepRequest, words: str) -> StepAnswer:
    """The answer that says why there is none."""
    return StepAnswer(request.number, b"", words[:MAX_PROBLEM_CHARACTERS])


def _wire(plan: SplitPlan, request: StepRequest) -> WireFormat:
    return plan.activations if request.direction == "forward" else plan.gradients
