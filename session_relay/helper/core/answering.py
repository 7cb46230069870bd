"""Answers requests that have come together, so that one that a graph can't compute costs no other its answer. Pure."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.blocks import BlockRunner, Floats
from bundle_runtime.graph import GraphError
from fleet_protocol.sessions.steps import StepAnswer
from session_relay.helper.core.middle import Middle
from session_relay.helper.core.requests import Asked, StepRefusedError, refusal


class RefusingRunner(BlockRunner):
    """A graph may fail on some values, as where one of them is an index: then it is the request that is refused."""

    def _run(
        self, file: str, feeds: Mapping[str, NDArray[np.generic]], expected: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Floats]:
        try:
            return super()._run(file, feeds, expected)
        except GraphError as error:
            raise StepRefusedError(str(error)) from error


def answers_of(middle: Middle, asked: Sequence[Asked]) -> list[StepAnswer]:
    """One answer for each request, in their order; backward passes first, as `Middle.answer` has them. `middle` runs a
    `RefusingRunner`.
    """
    answers: dict[int, StepAnswer] = {}
    for direction in ("backward", "forward"):
        places = [place for place, each in enumerate(asked) if each.request.direction == direction]
        answers |= zip(places, _answered(middle, [asked[place] for place in places]), strict=True)
    return [answers[place] for place in range(len(asked))]


def _answered(middle: Middle, asked: Sequence[Asked]) -> list[StepAnswer]:
    """One by one where together they are refused. Only forward passes are: they change nothing, and may be repeated."""
    try:
        return middle.answer(asked)
    except StepRefusedError as error:
        if len(asked) == 1:
            return [refusal(asked[0].request, str(error))]
        return [answer for each in asked for answer in _answered(middle, [each])]
