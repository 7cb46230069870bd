"""A query as the coordinator keeps it: what devices are asked, and what for."""

from enum import StrEnum

import msgspec

from fleet_protocol.kinds import Query


class QueryState(StrEnum):
    """Whether devices are still asked."""

    OPEN = "open"
    DONE = "done"
    """All its rounds are over."""
    STOPPED = "stopped"
    """By an operator, or as its task was removed."""


class Aims(msgspec.Struct, frozen=True, omit_defaults=True):
    """What devices need not know.

    `bins` between `lower` and `upper` of the query, of a histogram or of each quantile's next round; `probabilities`
    are those of the quantiles. A prefix of words with fewer than `votes` is dropped. `delta` is that of the votes'
    differential privacy. A round ends after `round_seconds` at the latest, with enough devices.
    """

    bins: int = 20
    probabilities: tuple[float, ...] = ()
    votes: int = 0
    delta: float = 0.0
    round_seconds: float = 86_400.0


class FoundWord(msgspec.Struct, frozen=True, array_like=True):
    """A word that enough devices voted for to its end, and how many did in that round."""

    word: str
    votes: int


class StoredQuery(msgspec.Struct, frozen=True, omit_defaults=True):
    """A query in its present round; `found` are words of earlier ones."""

    query: Query
    aims: Aims
    found: tuple[FoundWord, ...] = ()

    def in_round(self, **changed: object) -> "StoredQuery":
        """In its next round, with these fields of its query changed."""
        query = msgspec.structs.replace(self.query, round=self.query.round + 1, **changed)
        return msgspec.structs.replace(self, query=query)
