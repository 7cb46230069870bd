"""Ways of asking, in one table: what a device answers, and whether an answer could be one. Pure."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from fleet_protocol.analytics import binned, distinct, moments, words
from fleet_protocol.analytics.draws import Draws
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import AnalyticsReport, AnswerOutcome, Query
from fleet_protocol.limits import SMALLEST_EPSILON

WORDS: Final = "heavy_hitters"
DISTINCT: Final = "distinct"
BINNED: Final = frozenset({"count", "histogram", "quantiles", "labels"})
ASKS: Final = (*sorted(BINNED), *moments.NUMBERS, DISTINCT, WORDS)
"""What may be asked."""
SEEN: Final = frozenset({DISTINCT, WORDS})
"""Whose answers have no noise of their own: whoever runs the coordinator sees what is true of a device."""
IN_ROUNDS: Final = frozenset({"histogram", "quantiles", WORDS})
"""What may take more than one: each asks for what the one before it left open."""
ROUNDING: Final = 1e-9
"""By which a probability may be more than it should, as a share."""

_ANSWERS: Final = dict.fromkeys(BINNED, binned.answer) | dict.fromkeys(moments.NUMBERS, moments.answer)
_CHECKS: Final = (
    dict.fromkeys(BINNED, binned.check)
    | dict.fromkeys(moments.NUMBERS, moments.check)
    | {DISTINCT: distinct.check, WORDS: words.check}
)


def is_understood(query: Query) -> bool:
    """Whether this release knows how to answer, and the query agrees with itself."""
    in_order = all(before < after for before, after in pairwise(query.edges))
    is_finite = all(map(math.isfinite, (*query.edges, query.upper - query.lower, query.epsilon, query.share)))
    has_range = query.ask not in moments.NUMBERS or query.lower < query.upper
    is_private = not query.epsilon or _keeps_epsilon(query)
    is_in_round = query.round < query.rounds and (query.rounds == 1 or query.ask in IN_ROUNDS)
    return query.ask in ASKS and in_order and is_finite and has_range and is_private and is_in_round


def _keeps_epsilon(query: Query) -> bool:
    """Whether an answer costs what the query says, or can be had at that price at all."""
    if query.ask == WORDS and query.share > words.largest_share(query.epsilon_of_round) * (1 + ROUNDING):
        return False
    return query.ask != DISTINCT and query.epsilon_of_round >= SMALLEST_EPSILON


def answered(query: Query, values: Sequence[float], texts: Sequence[str], draws: Draws) -> AnalyticsReport:
    """The answer of a device that has these values, or texts where the field is of texts."""
    numbers: tuple[float, ...] = ()
    word = ""
    match query.ask:
        case "heavy_hitters":
            word = words.vote(query, texts, draws)
        case "distinct":
            numbers = distinct.answer(query, texts or values, draws)
        case ask:
            numbers = _ANSWERS[ask](query, values, draws)
    return AnalyticsReport(query.number, query.round, AnswerOutcome.ANSWERED, numbers, word)


def check_report(query: Query, report: AnalyticsReport) -> None:
    """Refuse a report that no honest device sends, so that one device moves a count by no more than its share.

    Raises:
        ProtocolError: with what is wrong.
    """
    if report.round != query.round:
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS, f"query {query.name!r} is in round {query.round}; the answer is to {report.round}"
        )
    if not all(map(math.isfinite, report.numbers)):
        raise ProtocolError(Reason.NOT_FINITE, "an answer holds a number that is not finite")
    if report.outcome is not AnswerOutcome.ANSWERED:
        if report.numbers or report.word:
            raise ProtocolError(Reason.WRONG_SHAPE, f"a device that answers {report.outcome.value} sends nothing else")
        return
    if report.word and query.ask != WORDS:
        raise ProtocolError(Reason.WRONG_SHAPE, f"a word in an answer for a {query.ask}")
    _CHECKS[query.ask](query, report)
