"""Which rounds are sent, by the rules of a task's `[sending]`; what is not sent changes nothing that is remembered."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle_runtime.runner import Evaluation
from edge_agent.core.norm_memory import divided, joined
from edge_agent.producers import produce
from edge_agent.training.feedback import recall
from edge_agent.training.round import Earlier
from edge_agent.training.sending import running_norm, why_irrelevant, why_no_better, why_unchanged
from edge_agent.worker.contract import Returned, TrainingResult, Withheld
from fleet_protocol.bundle import parse_description
from fleet_protocol.codec import decode_update
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sending_plan import SendingPlan
from tests.support.digits_rounds import BUNDLE, START, TASK, digits, learned, stored, take

CHANGED, RELEVANT, BETTER = (SendingPlan(rule, 0.5) for rule in ("changed", "relevant", "better"))


def ruled(plan: SendingPlan):
    return msgspec.structs.replace(TASK, sending=plan)


def vector(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@pytest.mark.parametrize(("norm", "usual", "kept"), [(0.49, 1.0, True), (0.5, 1.0, False), (0.01, 0.0, False)])
def test_change_is_compared_with_the_devices_own_usual_one(norm, usual, kept):
    assert bool(why_unchanged(CHANGED, norm, usual)) == kept


@given(st.floats(0.01, 100), st.floats(0.01, 100), st.floats(0.05, 1))
def test_device_whose_changes_stay_alike_is_not_silent_for_ever(first, later, threshold):
    plan = SendingPlan("changed", 0.95 * threshold)
    usual, silent = running_norm(0.0, first), 0
    while why_unchanged(plan, later, usual):
        usual, silent = running_norm(usual, later), silent + 1
        assert silent < 150


@pytest.mark.parametrize(
    ("delta", "change", "words"),
    [
        ((1, -1, 1, 1), (2, 1, -1, -1), "25% of its signs agree with the last global change, 50% are wanted"),
        ((1, -1, 1, 1), (2, -1, -1, -1), ""),
        ((1, -1, 1, 1), (-1, 0, 0, 0), "0% of its signs agree with the last global change, 50% are wanted"),
        ((1, -1, 1, 1), (0, 0, 0, 0), ""),
        ((0, 0, 1, 1), (1, 1, 1, 0), "33% of its signs agree with the last global change, 50% are wanted"),
    ],
)
def test_signs_are_compared_where_the_fleet_has_moved(delta, change, words):
    assert why_irrelevant(RELEVANT, vector(*delta), vector(*change)) == words


def test_first_round_of_a_device_knows_no_global_change_and_is_sent():
    assert why_irrelevant(RELEVANT, vector(1, 2), None) == ""


def evaluation(losses: tuple[float, ...], correct: tuple[float, ...] | None) -> Evaluation:
    return Evaluation(vector(*losses), None if correct is None else vector(*correct))


@pytest.mark.parametrize(
    ("before", "after", "sent"),
    [
        (((1, 1), (0, 0)), ((1, 1), (1, 0)), True),
        (((1, 1), (1, 0)), ((0, 0), (1, 0)), False),
        (((1, 1), None), ((0.5, 0.5), None), True),
        (((1, 1), None), ((0.6, 0.6), None), False),
        (((0, 0), None), ((0, 0), None), False),
    ],
)
def test_gain_counts_right_answers_or_else_a_share_of_the_loss(before, after, sent):
    assert (why_no_better(BETTER, evaluation(*before), evaluation(*after)) == "") == sent


@given(st.floats(0, 1e30), st.binary(max_size=64))
def test_norm_and_state_are_stored_together_and_other_tasks_store_what_they_did(norm, state):
    assert divided(CHANGED, joined(CHANGED, norm, state)) == (norm, state)
    assert joined(SendingPlan(), norm, state) == state
    assert divided(SendingPlan(), state) == (0.0, state)


@pytest.mark.parametrize("damaged", [b"", b"\xff" * 8 + b"state", b"\x00\x00\x00\x00\x00\x00\xf0\xbf"])
def test_norm_that_can_be_none_begins_anew(damaged):
    assert divided(CHANGED, damaged)[0] == 0.0


def test_round_that_changed_little_sends_nothing_and_leaves_residual_and_rejected_updates_to_the_next_one():
    samples, task = stored(digits(np.arange(300) % 10)), ruled(SendingPlan("changed", 1.0))
    first = take(samples, task)
    returned = (Returned(first.packed),)
    quiet = take(samples, task, Earlier(first.residual, returned, 1, 1, usual_norm=1e6))
    assert isinstance(quiet, TrainingResult)
    assert (quiet.packed, produce(task, quiet)) == (b"", [])
    assert quiet.kept.endswith("below 1 of the usual 1e+06")
    assert quiet.usual_norm == pytest.approx(0.9e6, rel=1e-3)
    total = recall(task.update, first.residual, task.trained_count, 1)
    total.give_back(decode_update(first.packed, task.trained_shapes))
    assert quiet.residual == total.state()


@pytest.mark.parametrize("plan", [SendingPlan("relevant", 0.9), SendingPlan("better", 1.0)])
def test_round_that_a_rule_refuses_is_withheld_with_the_reason(plan):
    samples = stored(digits(np.arange(300) % 10))
    earlier = Earlier(b"", (), 0, 1, last_weights=START + np.float32(1))
    withheld = take(samples, ruled(plan), earlier, learned())
    assert isinstance(withheld, Withheld)
    assert withheld.why == {"relevant": "irrelevant", "better": "no_better"}[plan.rule]
    assert "wanted" in withheld.words


@pytest.mark.parametrize("threshold", [0.0])
@pytest.mark.parametrize("rule", ["changed", "relevant", "better"])
def test_rule_that_asks_for_nothing_sends_as_always(rule, threshold):
    samples = stored(digits(np.arange(300) % 10))
    with_rule, without = take(samples, ruled(SendingPlan(rule, threshold))), take(samples)
    assert isinstance(with_rule, TrainingResult)
    assert with_rule.packed == without.packed


@pytest.mark.parametrize(
    ("plan", "changes", "words"),
    [
        (CHANGED, {"update": {"feedback": "ef21"}, "aggregation": {"strategy": "ef21"}}, "take the feedback"),
        (BETTER, {"training": {"validation_share": 0.0}}, "needs validation samples"),
    ],
)
def test_rule_that_can_not_work_is_refused_with_what_to_change(plan, changes, words):
    task = msgspec.structs.replace(
        ruled(plan),
        **{name: msgspec.structs.replace(getattr(TASK, name), **fields) for name, fields in changes.items()},
    )
    with pytest.raises(ConfigurationError, match=words):
        parse_description(msgspec.json.encode(task))


def test_bundle_without_a_rule_is_written_as_before():
    assert b"sending" not in msgspec.json.encode(BUNDLE.description)
