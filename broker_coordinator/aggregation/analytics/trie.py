"""Heavy hitters: how few votes count as none, who votes, and which letters follow. Pure.

TrieHH (Zhu, Kairouz, McMahan, Sun and Li 2020, "Federated heavy hitters discovery with differential privacy", theorem 1
and corollary 1). There a fixed number of devices votes; here each draws for itself, with the same probability q, and
the same holds. A prefix stays with at least T votes. Of k devices that have it, let X vote. Taking one more device in
changes P(X >= T) by the factor 1 + q P(X = T - 1) / P(X >= T), at most 1 + T / (k + 1 - T), which is at most
1 / (1 - q T) where k + 1 >= 1 / q: so one round costs epsilon = -ln(1 - q T). Where fewer have it, it stays with a
probability of at most the sum of 1 / t! over t >= T, below (T - 2) / ((T - 3) T!): that is delta.
"""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

from broker_coordinator.aggregation.analytics.reports import ReportFacts
from broker_coordinator.aggregation.analytics.stored_query import FoundWord, StoredQuery
from fleet_protocol.analytics.words import END, FEWEST_VOTES
from fleet_protocol.limits import MAX_PREFIX_BYTES, MAX_PREFIXES


def votes_for(delta: float, rounds: int) -> int:
    """How many votes a prefix needs so that all `rounds` together keep `delta`."""
    votes = FEWEST_VOTES
    while rounds * (votes - 2) / ((votes - 3) * math.factorial(votes)) > delta:
        votes += 1
    return votes


def share_for(epsilon_of_round: float, votes: int) -> float:
    """With which probability a device votes in a round that costs `epsilon_of_round`."""
    return -math.expm1(-epsilon_of_round) / votes


def probability_found(holders: Sequence[int], share: float, votes: int) -> float:
    """Of a word, where `holders` says for each of its prefixes, the shortest first, how many devices have that."""
    return math.prod(1.0 - _fewer_than(votes, devices, share) for devices in holders)


def next_prefixes(stored: StoredQuery, reports: Sequence[ReportFacts]) -> tuple[tuple[str, ...], tuple[FoundWord, ...]]:
    """The prefixes that the next round takes further, those with the most votes first; and the words that ended."""
    counted = Counter(each.word for each in reports if each.word)
    enough = [(word, votes) for word, votes in counted.most_common() if votes >= stored.aims.votes]
    ended = tuple(FoundWord(word.removesuffix(END), votes) for word, votes in enough if word.endswith(END))
    return _bounded([word for word, _ in enough if not word.endswith(END)]), ended


def _bounded(prefixes: Sequence[str]) -> tuple[str, ...]:
    """The first of them, as many as a query holds."""
    sizes = accumulate(len(prefix.encode()) for prefix in prefixes)
    fitting = sum(size <= MAX_PREFIX_BYTES for size in sizes)
    return tuple(prefixes[: min(fitting, MAX_PREFIXES)])


def _fewer_than(votes: int, devices: int, share: float) -> float:
    """Probability that fewer than `votes` of so many devices vote: the binomial distribution."""
    return math.fsum(
        math.comb(devices, count) * share**count * (1 - share) ** (devices - count)
        for count in range(min(votes, devices + 1))
    )
