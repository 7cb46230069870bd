"""What a query asks in its next round, once enough devices have answered this one. Pure."""

import msgspec

from broker_coordinator.aggregation.analytics.bins import pooled
from broker_coordinator.aggregation.analytics.edges import next_edges
from broker_coordinator.aggregation.analytics.reports import RoundAnswers
from broker_coordinator.aggregation.analytics.stored_query import StoredQuery
from broker_coordinator.aggregation.analytics.trie import next_prefixes
from fleet_protocol.analytics.answers import WORDS


def next_round(stored: StoredQuery, answers: RoundAnswers) -> tuple[StoredQuery, bool]:
    """The query as it goes on, and whether another round follows: if not, this was its last one."""
    is_last = stored.query.round + 1 == stored.query.rounds
    if stored.query.ask == WORDS:
        prefixes, ended = next_prefixes(stored, answers.answered)
        after = msgspec.structs.replace(stored, found=stored.found + ended)
        goes_on = bool(prefixes) and not is_last
        return (after.in_round(prefixes=prefixes), True) if goes_on else (after, False)
    edges = None if is_last else next_edges(stored, pooled(stored.query, answers.answered))
    return (stored, False) if edges is None else (stored.in_round(edges=edges), True)


def is_over(stored: StoredQuery, answered: int, reported: int, fleet: int, seconds: float) -> bool:
    """Whether a round of several ends: enough devices have `answered`, and all of the `fleet` have `reported`, or it
    has lasted `seconds`, long enough.
    """
    return answered >= stored.query.minimum_devices and (reported >= fleet or seconds >= stored.aims.round_seconds)
