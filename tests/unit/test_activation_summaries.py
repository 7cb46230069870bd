"""What a helper says of a device's activation is taken as the task asks for it, and from helpers alone."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.admission.consumer import Offered
from broker_coordinator.consumers import ACTIVATION_SUMMARY_CONSUMER
from broker_coordinator.consumers.activation_summary import SummaryFacts
from fleet_protocol.activation_plan import LEAST_ROWS
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import ActivationSummary, decode_payload, encode_payload
from tests.support.split_task import TASK as SPLIT_TASK

TASK = msgspec.structs.replace(SPLIT_TASK, clusters=ClusterPlan(2, activations="second"))
BY_HAND = msgspec.structs.replace(SPLIT_TASK, clusters=ClusterPlan(2))


def packed(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


GOOD = ActivationSummary("kitchen-pi", 16, packed(1, -0.5, 0, 1e30))


def admit(summary: ActivationSummary, task=TASK, *, from_helper: bool = True):
    return ACTIVATION_SUMMARY_CONSUMER.admit(Offered("cellar-pi", None, summary, task, 0, from_helper=from_helper))


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4))
def test_facts_that_stand_in_the_journal_have_the_exact_values(values):
    admitted = admit(ActivationSummary("kitchen-pi", LEAST_ROWS, packed(*values)))
    facts = msgspec.json.decode(msgspec.json.encode(admitted.facts), type=SummaryFacts)
    assert (facts.device, facts.rows) == ("kitchen-pi", LEAST_ROWS)
    assert packed(*facts.mean) == packed(*values)


REFUSED = {
    "no helper": (GOOD, TASK, False, Reason.OUT_OF_BOUNDS, "is no helper of this fleet"),
    "assigned by hand": (GOOD, BY_HAND, True, Reason.MALFORMED, "finds no clusters by activations"),
    "no clusters": (GOOD, SPLIT_TASK, True, Reason.MALFORMED, "finds no clusters by activations"),
    "few rows": (ActivationSummary("a", 7, GOOD.mean), TASK, True, Reason.OUT_OF_BOUNDS, "a mean over 7 samples"),
    "short": (ActivationSummary("a", 16, GOOD.mean[:12]), TASK, True, Reason.WRONG_SHAPE, "a mean of 12 bytes"),
    "long": (ActivationSummary("a", 16, bytes(4096)), TASK, True, Reason.WRONG_SHAPE, "a mean of 4096 bytes"),
    "odd": (ActivationSummary("a", 16, bytes(15)), TASK, True, Reason.WRONG_SHAPE, "a mean of 15 bytes"),
    "NaN": (
        ActivationSummary("a", 16, packed(1, np.nan, np.inf, 0)),
        TASK,
        True,
        Reason.NOT_FINITE,
        "2 of the 4 values",
    ),
}


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_what_is_no_mean_that_the_task_asks_for_is_refused_with_the_reason(refused):
    summary, task, from_helper, reason, words = refused
    with pytest.raises(ProtocolError) as error:
        admit(summary, task, from_helper=from_helper)
    assert error.value.reason is reason
    assert words in str(error.value)


@pytest.mark.parametrize(
    "summary",
    [
        ActivationSummary("", 16, GOOD.mean),
        ActivationSummary("a/b", 16, GOOD.mean),
        ActivationSummary("kitchen-pi", 0, GOOD.mean),
        ActivationSummary("kitchen-pi", 16, b""),
        ActivationSummary("kitchen-pi", 16, bytes(4100)),
    ],
)
def test_what_the_kind_does_not_allow_is_malformed(summary):
    with pytest.raises(ProtocolError) as error:
        decode_payload(encode_payload(summary), ActivationSummary)
    assert error.value.reason is Reason.MALFORMED
