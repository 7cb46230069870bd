"""Heavy hitters: which words many devices have, found letter by letter. Pure.

TrieHH (Zhu, Kairouz, McMahan, Sun and Li 2020, "Federated heavy hitters discovery with differential privacy"): in each
round some devices, drawn with the probability `share`, vote for one letter more of one of their words of which what
stands before it is among `prefixes`. Which one is drawn anew in each round, so a device has one vote in it. Which
devices vote, and that few votes count as none, is what makes it private;
`broker_coordinator.aggregation.analytics.trie` has the theory. A word is at most as long as there are rounds, less one
for its end.
"""

import math
from collections.abc import Sequence
from typing import Final

from fleet_protocol.analytics.draws import Draws
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import AnalyticsReport, Query

END: Final = "\n"
"""Follows the last letter of a word; no word has it, as a word is in one line."""

FEWEST_VOTES: Final = 10
"""That a prefix needs where votes cost epsilon, as in the paper's corollary 1."""


def largest_share(epsilon: float) -> float:
    """With which probability a device may vote in a round that costs `epsilon`: more, and it would cost more."""
    return -math.expm1(-epsilon) / FEWEST_VOTES


def vote(query: Query, words: Sequence[str], draws: Draws) -> str:
    """What a device with these words votes for in this round: empty where it is not drawn, or has nothing to say."""
    if draws.random() >= query.share:
        return ""
    prefixes = frozenset(query.prefixes)
    fitting = [word + END for word in words if len(word) >= query.round and word[: query.round] in prefixes]
    return fitting[draws.randrange(len(fitting))][: query.round + 1] if fitting else ""


def check(query: Query, report: AnalyticsReport) -> None:
    """Refuse what no device can vote for.

    Raises:
        ProtocolError: with what is wrong.
    """
    word = report.word
    if report.numbers:
        raise ProtocolError(Reason.WRONG_SHAPE, f"{len(report.numbers)} numbers beside a vote")
    if not word.removesuffix(END).isprintable():
        raise ProtocolError(Reason.OUT_OF_BOUNDS, "a vote for a control character, which no word has")
    if word and (len(word) != query.round + 1 or word[:-1] not in query.prefixes):
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS, f"a vote of {len(word)} letters in round {query.round}, which continues no prefix"
        )
