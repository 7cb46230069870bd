"""What a simulation without signatures does not decode again is what decoding gives."""

import msgspec
import numpy as np
import pytest

from broker_coordinator.admission.decisions import Message
from broker_coordinator.admission.parsed_message import ParsedMessage
from fleet_protocol.codec import decode_update
from fleet_protocol.envelope import Envelope, Header
from fleet_protocol.kinds import (
    ENROLMENT,
    RECEIPT,
    UPDATE,
    Outcome,
    PayloadKind,
    Receipt,
    Update,
    decode_payload,
    encode_payload,
    read_own,
)
from fleet_protocol.update_plan import UpdatePlan
from tests.support.simulated_fleet import BUNDLE
from workbench.simulation.own_payloads import MOST_ON_THEIR_WAY, UNSIGNED, OwnPayload, UpdatesUnderWay

TASK = BUNDLE.description
WHOLE = UpdatePlan(keep_fraction=1.0, quantisation="float32", selection="dense")


def parsed(payload: msgspec.Struct, kind: PayloadKind = UPDATE) -> ParsedMessage:
    data = encode_payload(payload)
    return ParsedMessage(
        Message("", data), b"", "d1", Envelope(Header(kind, 1, TASK.task, 0, b""), b"", data, b"", b"")
    )


@pytest.mark.parametrize("plan", [WHOLE, TASK.update])
def test_an_update_under_way_is_known_once_as_decoding_gives_it(plan):
    delta = np.random.default_rng(1).standard_normal(TASK.trained_count).astype(np.float32)
    under_way = UpdatesUnderWay()
    packed = under_way.encode(delta, TASK.trained_shapes, plan, np.random.default_rng(0)).packed
    update = Update(40, 60, 0.5, packed)
    prepared = under_way.prepared(parsed(update), TASK)
    expected = decode_update(packed, TASK.trained_shapes)
    assert prepared.is_checked
    assert prepared.payload == update
    assert np.array_equal(prepared.decoded.indices, expected.indices)
    assert prepared.decoded.values.tobytes() == expected.values.tobytes()
    assert under_way.prepared(parsed(update), TASK).decoded is None, "it is sent again: it is decoded"


def test_updates_that_never_arrive_do_not_fill_the_memory():
    under_way = UpdatesUnderWay()
    for number in range(MOST_ON_THEIR_WAY + 5):
        under_way.encode(np.float32([number, 1]), ((2,),), WHOLE, np.random.default_rng(0))
    assert len(under_way._sent) == MOST_ON_THEIR_WAY


def test_what_is_no_whole_update_is_decoded_as_it_comes():
    under_way = UpdatesUnderWay()
    packed = under_way.encode(np.ones(2, np.float32), ((2,),), WHOLE, np.random.default_rng(0)).packed
    assert under_way.prepared(parsed(Update(4, 6, 0.5, packed, held=(4, 0))), TASK).decoded is None
    assert under_way.prepared(parsed(Update(4, 6, 0.5, packed), ENROLMENT), TASK) is UNSIGNED


def test_an_own_payload_has_the_bytes_of_any_other_and_is_read_as_it():
    receipt = Receipt(bytes(16), Outcome.REJECTED, "too_stale", "words", 7, 2)
    made = OwnPayload.of(receipt)
    assert made == encode_payload(receipt)
    assert made.payload is receipt
    assert read_own(made, RECEIPT.payload) == decode_payload(made, Receipt) == receipt
