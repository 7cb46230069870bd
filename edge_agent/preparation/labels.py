"""Where the label of a sample is found: in its reading, in a later message, or in a later reading. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from edge_agent.preparation.refusal import ReadingRefusedError
from edge_agent.preparation.waiting import Labelled, WaitingSamples
from fleet_protocol.reading_plan import LabelPlan


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest reading: its time, the `inputs` that it completes, and its own value of the label's field, each None
    where there is none.
    """

    at: float
    inputs: list[float] | None
    label: float | None
    identifier: str


def samples_with(newest: Newest, plan: LabelPlan | None, waiting: WaitingSamples) -> list[Labelled]:
    """The samples that have all that they need with this reading; what needs more joins those that wait."""
    if plan is None:
        return [(newest.inputs, None)] if newest.inputs is not None else []
    return _FINDERS[plan.found](newest, plan, waiting)


def samples_named_by(
    plan: LabelPlan, waiting: WaitingSamples, label: float, at: float, identifier: str
) -> list[Labelled]:
    """The samples that a message is the label of, which holds nothing else.

    Raises:
        ReadingRefusedError: there is none.
    """
    if plan.found == "by_id":
        found = waiting.with_identifier(identifier, label)
        words = f"no sample with the id {identifier!r} waits for a label"
    else:
        found = waiting.around(at, plan.within_seconds, label)
        words = f"no sample within {plan.within_seconds:g} s of {at:.3f} s waits for a label"
    if not found:
        raise ReadingRefusedError("label_without_sample", f"{words}: its reading has not come, or has its label")
    return found


def _in_reading(newest: Newest, _: LabelPlan, __: WaitingSamples) -> list[Labelled]:
    return [(newest.inputs, newest.label)] if newest.inputs is not None and newest.label is not None else []


def _in_message(newest: Newest, plan: LabelPlan, waiting: WaitingSamples) -> list[Labelled]:
    if newest.label is not None:
        return _in_reading(newest, plan, waiting)
    waiting.drop_before(newest.at - plan.wait_seconds)
    if newest.inputs is not None:
        waiting.add(newest.at, newest.inputs, newest.identifier)
    return []


def _ahead(newest: Newest, plan: LabelPlan, waiting: WaitingSamples) -> list[Labelled]:
    found = []
    if newest.label is not None and plan.after_seconds is not None:
        found = waiting.due(newest.at - plan.after_seconds, plan.within_seconds, newest.label)
    if newest.inputs is not None:
        waiting.add(newest.at, newest.inputs)
    return found


_FINDERS: Final[Mapping[str, Callable[[Newest, LabelPlan, WaitingSamples], list[Labelled]]]] = {
    "in_reading": _in_reading,
    "by_id": _in_message,
    "by_time": _in_message,
    "later": _ahead,
}
