"""What the coordinator asks the devices of a task about their samples (docs/analytics.md)."""

from typing import Annotated

import msgspec

from fleet_protocol.configuration import Name
from fleet_protocol.kinds.kind import Leaf, PayloadKind
from fleet_protocol.limits import (
    MAX_ANSWER_NUMBERS,
    MAX_EPSILON,
    MAX_FIELD_CHARACTERS,
    MAX_OPEN_QUERIES,
    MAX_PREFIXES,
    MAX_QUERIES_BYTES,
    MAX_QUERY_CONDITIONS,
    MAX_QUERY_NUMBER,
    MAX_QUERY_ROUNDS,
    MAX_SAMPLES_PER_UPDATE,
    MAX_SEQUENCE,
    MAX_WORD_CHARACTERS,
)

FieldText = Annotated[str, msgspec.Meta(max_length=MAX_FIELD_CHARACTERS)]
"""Names a field of the sample store (`fleet_protocol.analytics.fields`); read there, so that a device can refuse it."""
Seconds = Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQUENCE)]
QueryNumber = Annotated[int, msgspec.Meta(ge=1, le=MAX_QUERY_NUMBER)]
Round = Annotated[int, msgspec.Meta(ge=0, lt=MAX_QUERY_ROUNDS)]


class Condition(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Only samples count whose `field` is from `at_least` to `at_most`; None bounds nothing."""

    field: FieldText
    at_least: float | None
    at_most: float | None


class Query(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One query in one of its rounds.

    `number` is drawn at random, so that no other coordinator's query has it. `since` and `until` bound when a sample
    was received, in seconds since 1970; 0 bounds nothing. `lower` and `upper` bound values, which are clipped. At most
    `samples_per_device` samples of one device count. `epsilon` is what all `rounds` cost together, 0 for exact answers.
    Less than `minimum_devices` answers are shown to nobody. `edges` divide values into bins, `prefixes` are what words
    may begin with, and `share` is the probability with which a device votes.
    """

    number: QueryNumber
    name: Name
    ask: Annotated[str, msgspec.Meta(max_length=MAX_FIELD_CHARACTERS)]
    field: FieldText
    where: Annotated[tuple[Condition, ...], msgspec.Meta(max_length=MAX_QUERY_CONDITIONS)]
    since: Seconds
    until: Seconds
    lower: float
    upper: float
    samples_per_device: Annotated[int, msgspec.Meta(ge=1, le=MAX_SAMPLES_PER_UPDATE)]
    epsilon: Annotated[float, msgspec.Meta(ge=0, le=MAX_EPSILON)]
    minimum_devices: Annotated[int, msgspec.Meta(ge=1, le=MAX_SAMPLES_PER_UPDATE)]
    rounds: Annotated[int, msgspec.Meta(ge=1, le=MAX_QUERY_ROUNDS)]
    round: Round
    edges: Annotated[tuple[float, ...], msgspec.Meta(max_length=MAX_ANSWER_NUMBERS - 1)]
    prefixes: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=MAX_WORD_CHARACTERS + 1)], ...],
        msgspec.Meta(max_length=MAX_PREFIXES),
    ]
    share: Annotated[float, msgspec.Meta(ge=0, le=1)]

    @property
    def epsilon_of_round(self) -> float:
        """What the answer to one round costs."""
        return self.epsilon / self.rounds


class Queries(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """All queries about the header's task that are open now. The message is retained, and replaces the last one."""

    asked: Annotated[tuple[Query, ...], msgspec.Meta(max_length=MAX_OPEN_QUERIES)]


QUERIES = PayloadKind(38, Queries, Leaf.QUERY, max_bytes=MAX_QUERIES_BYTES)
