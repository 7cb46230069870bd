"""What a round and its helper say to each other: requests with their numbers, and which answer belongs to which."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from bundle_runtime.blocks import Floats
from edge_agent.training.split.exchange import Exchange, SessionFailedError, SessionGone
from edge_agent.training.split.outgoing import packed_activations, packed_gradient
from edge_agent.training.split.pace import Pace
from edge_agent.training.split.step import Ask, Step, Walk
from fleet_protocol.codec.activations import unpack_rows
from fleet_protocol.errors import ProtocolError
from fleet_protocol.limits import KIB, MAX_SESSION_MESSAGE_BYTES
from fleet_protocol.sessions.steps import StepAnswer, StepRequest
from fleet_protocol.split_plan import SplitPlan

LARGEST_PACKED_BYTES: Final = MAX_SESSION_MESSAGE_BYTES - KIB
"""Of a request's values, beside what stands around them."""


@dataclass(slots=True)
class StepUnderWay:
    """A step somewhere on its way. Its passes have the numbers from `first_pass` on, it has asked `asks` times, and the
    device has computed `seconds` for it.
    """

    step: Step
    walk: Walk
    first_pass: int
    asks: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Answered:
    """The helper's activations or gradient f32[N, ...] for a step."""

    under_way: StepUnderWay
    values: Floats


@dataclass(frozen=True, slots=True)
class WrongAnswer:
    """An answer that helps no step; `under_way` is the one it was meant for, if any."""

    under_way: StepUnderWay | None
    words: str


@dataclass(frozen=True, slots=True)
class _Request:
    under_way: StepUnderWay
    ask: Ask
    sent_at: float


class Conversation:
    """One session after the other with a helper, through an exchange."""

    def __init__(self, exchange: Exchange, plan: SplitPlan, generator: np.random.Generator, pace: Pace) -> None:
        """`generator` must be one that the helper can't know; `pace` is told how long answers take."""
        self._exchange = exchange
        self._plan = plan
        self._generator = generator
        self._pace = pace
        self._clock = pace.clock
        self._asked: dict[int, _Request] = {}
        self._requests = 0

    def ask(self, under_way: StepUnderWay, ask: Ask) -> None:
        """Send what a step asks.

        Raises:
            SessionFailedError: it is larger than what passes.
        """
        forward = ask.direction == "forward"
        packed = (packed_activations if forward else packed_gradient)(ask.values, self._plan, self._generator)
        if len(packed) > LARGEST_PACKED_BYTES:
            raise SessionFailedError(
                f"a step's {'activations' if forward else 'gradient'} take {len(packed)} bytes, at most"
                f" {LARGEST_PACKED_BYTES} pass; export the task with a smaller batch_size or another format in [split]"
            )
        self._requests += 1
        under_way.asks += 1
        self._asked[self._requests] = _Request(under_way, ask, self._clock())
        self._exchange.send(
            StepRequest(
                number=self._requests,
                direction=ask.direction,
                step=under_way.first_pass + ask.part_pass,
                first=ask.leg.first,
                end=ask.leg.end,
                rows=len(ask.values),
                seed=under_way.step.batch.seed,
                update=ask.update,
                wire=self._plan.activations if forward else self._plan.gradients,
                packed=packed,
            )
        )

    def next(self) -> Answered | WrongAnswer | SessionGone:
        """Wait for what comes. With its session, all that was asked is forgotten."""
        received = self._exchange.receive()
        if isinstance(received, SessionGone):
            self._asked.clear()
            self._requests = 0
            return received
        return self._matched(received)

    def _matched(self, answer: StepAnswer) -> Answered | WrongAnswer:
        request = self._asked.pop(answer.number, None)
        if request is None:
            return WrongAnswer(None, f"it answers request {answer.number}, which nothing waits for")
        if answer.problem:
            return WrongAnswer(request.under_way, f"it says: {answer.problem}")
        try:
            values = self._unpacked(answer.packed, request.ask)
        except ProtocolError as error:
            return WrongAnswer(request.under_way, f"its answer to request {answer.number} is {error}")
        self._pace.answered(request.under_way.asks, self._clock() - request.sent_at)
        return Answered(request.under_way, values)

    def _unpacked(self, packed: bytes, ask: Ask) -> Floats:
        """What a leg makes of activations is that of its last block; of a gradient, by what its first block takes."""
        forward = ask.direction == "forward"
        shape = self._plan.blocks[ask.leg.end - 1 if forward else ask.leg.first - 1].output_shape
        wire = self._plan.activations if forward else self._plan.gradients
        return unpack_rows(packed, wire, len(ask.values), shape)
