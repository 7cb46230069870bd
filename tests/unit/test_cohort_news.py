"""A device that waits for its cohort sees in a manifest that it is settled, and in no other that it is."""

import msgspec
import pytest

from edge_agent.core.cohort_news import is_settled
from edge_agent.core.outbox import OutboxRow
from fleet_protocol.kinds import MASKED_UPDATE, UPDATE, Manifest, encode_payload
from secure_aggregation.signatures import signed
from tests.support.masked_cohort import MaskedCohort, manifest_of

BUNDLE, OTHER = "ab" * 32, "cd" * 32
JOINED = MaskedCohort(manifest_of(number=1), 2)
NEXT = MaskedCohort(manifest_of(number=2), 2)


def named(cohort, **fields):
    shown = b"" if cohort is None else encode_payload(signed(cohort.coordinator, cohort.manifest))
    return msgspec.structs.replace(Manifest(4, BUNDLE, OTHER, 2**32, 3, cohort=shown), **fields)


def row(kind=MASKED_UPDATE):
    payload = encode_payload(JOINED.rounds["pi-0000"].update)
    return OutboxRow(7, kind.number, "digits", BUNDLE, 3, b"", payload, generation=3)


@pytest.mark.parametrize(
    ("manifest", "settled"),
    [
        (named(JOINED), False),
        (named(None), False),
        (named(None, version=5), False),
        (named(NEXT), True),
        (named(NEXT, version=5), True),
        (named(None, generation=4), True),
        (named(None, generation=4, bundle=OTHER), True),
        (named(None, generation=4, removed=True), True),
    ],
)
def test_cohort_is_settled_where_another_is_open_or_the_task_is_another(manifest, settled):
    assert is_settled(row(), manifest) is settled
    assert not is_settled(row(UPDATE), manifest), "what is not masked has its outcome with its first receipt"
