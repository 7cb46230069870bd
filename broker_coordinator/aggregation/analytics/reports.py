"""The reports of one round of a query, as the journal has them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from fleet_protocol.kinds import AnswerOutcome


class ReportFacts(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What the journal tells of a report: all of it, so that nobody has to open an encrypted one again."""

    query: int
    round: int
    outcome: AnswerOutcome
    numbers: tuple[float, ...] = ()
    word: str = ""


@dataclass(frozen=True, slots=True)
class RoundAnswers:
    """What devices have answered in one round, and how many gave which reason for no answer."""

    answered: tuple[ReportFacts, ...]
    refusals: Mapping[str, int]


def answers_of(reports: Iterable[tuple[str, ReportFacts]], round_number: int) -> RoundAnswers:
    """The answers to a round: the first report of each device counts, `reports` being in journal order."""
    first: dict[str, ReportFacts] = {}
    for device, facts in reports:
        if facts.round == round_number:
            first.setdefault(device, facts)
    refused = Counter(each.outcome.value for each in first.values() if each.outcome is not AnswerOutcome.ANSWERED)
    return RoundAnswers(
        tuple(each for each in first.values() if each.outcome is AnswerOutcome.ANSWERED), dict(sorted(refused.items()))
    )
