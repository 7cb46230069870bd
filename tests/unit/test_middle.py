"""A helper's middle: requests checked, answered together as one by one, and nothing half done."""

import msgspec
import numpy as np
import pytest

from bundle_runtime.blocks import BlockRunner
from fleet_protocol.codec.activations import pack_activations, unpack_rows
from fleet_protocol.limits import MAX_PROBLEM_CHARACTERS
from fleet_protocol.sessions.staleness import staleness_weight
from fleet_protocol.sessions.steps import StepAnswer, StepRequest
from session_relay.helper.core.contribution import Contribution
from session_relay.helper.core.middle import MOST_ABANDONED, Middle, helpers_blocks
from session_relay.helper.core.requests import Asked
from session_relay.helper.core.usual_changes import FEWEST, MOST_TIMES, UsualChanges
from tests.support.split_session import KEPT_BYTES, middle_of, plan_of, shipped, shipped_weights

TASK = shipped().description
PLAN = plan_of(TASK)
CUT = PLAN.cuts[0]
BEFORE, AFTER = (tuple(PLAN.blocks[block].output_shape) for block in (0, 1))
ROWS = 4
A, B, C = (bytes([letter]) * 16 for letter in b"abc")


def new_middle(*sessions: bytes, kept_bytes: int = KEPT_BYTES, optimiser: str = "", **changes: object) -> Middle:
    bundle = shipped()
    if optimiser:
        training = msgspec.structs.replace(TASK.training, optimiser=optimiser)
        bundle = type(bundle)(msgspec.structs.replace(TASK, training=training), bundle.files)
    middle = middle_of(bundle, plan_of(TASK, **changes), shipped_weights(), kept_bytes)
    for session in sessions or (A,):
        middle.open(session, CUT)
    return middle


def values(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).random((ROWS, *shape), np.float32)


def gradient(seed: int, scale: float = 0.01) -> np.ndarray:
    return np.float32(scale) * (values(seed, *AFTER) - np.float32(0.5))


def forward(step: int, content: int = 0, **changes: object) -> StepRequest:
    packed = pack_activations(values(content, *BEFORE), "float32")
    request = StepRequest(2 * step + 1, "forward", step, 1, 2, ROWS, step, False, "float32", packed)
    return msgspec.structs.replace(request, **changes)


def backward(step: int, content: int = 100, scale: float = 0.01, **changes: object) -> StepRequest:
    packed = pack_activations(gradient(content, scale), "float32")
    request = StepRequest(2 * step + 2, "backward", step, 1, 2, ROWS, step, True, "float32", packed)
    return msgspec.structs.replace(request, **changes)


def ask(middle: Middle, *requests: StepRequest, session: bytes = A) -> list[StepAnswer]:
    return middle.answer([Asked(session, request) for request in requests])


def problem(middle: Middle, request: StepRequest, session: bytes = A) -> str:
    (answer,) = ask(middle, request, session=session)
    assert answer.number == request.number
    assert not answer.packed
    return answer.problem


def contribution_of(middle: Middle) -> Contribution | None:
    """When all sessions have ended."""
    for session in (A, B, C):
        middle.close(session)
    return middle.take_contribution()


def delta(middle: Middle) -> np.ndarray:
    contribution = contribution_of(middle)
    assert contribution is not None
    return contribution.delta


def runner() -> BlockRunner:
    return BlockRunner(TASK, shipped().files, helpers_blocks(PLAN))


def test_a_step_is_the_blocks_own_passes():
    middle, blocks = new_middle(), runner()
    weights = blocks.weights_of(1, shipped_weights())
    (there,) = ask(middle, forward(0))
    np.testing.assert_array_equal(
        unpack_rows(there.packed, "float32", ROWS, AFTER), blocks.forward(1, weights, values(0, *BEFORE), seed=0)
    )
    (back,) = ask(middle, backward(0))
    expected = blocks.backward(
        1,
        weights,
        blocks.new_state(1),
        values(0, *BEFORE),
        gradient(100),
        seed=0,
        rates=TASK.training,
    )
    np.testing.assert_array_equal(unpack_rows(back.packed, "float32", ROWS, BEFORE), expected.input_gradient)
    assert middle.take_contribution() is None, "the session is open"
    contribution = contribution_of(middle)
    np.testing.assert_array_equal(blocks.weights_of(1, contribution.delta), expected.weights - weights)
    assert contribution.held == [0, ROWS, 0]
    assert contribution.steps == 1
    assert middle.take_contribution() is None


def test_forward_passes_of_several_sessions_together_are_those_of_each():
    together, alone = new_middle(A, B, C), new_middle(A, B, C)
    asked = [Asked(session, forward(0, seed)) for seed, session in enumerate((A, B, C))]
    for answer, each in zip(together.answer(asked), asked, strict=True):
        (expected,) = alone.answer([each])
        given, wanted = (unpack_rows(one.packed, "float32", ROWS, AFTER) for one in (answer, expected))
        np.testing.assert_allclose(given, wanted, rtol=0, atol=1e-6)


def test_backward_passes_together_train_with_the_sum_of_their_gradients():
    """Each as if it had come behind the others."""
    middle = new_middle(A, B)
    middle.answer([Asked(A, forward(0, 0)), Asked(B, forward(0, 1))])
    answers = middle.answer([Asked(A, backward(0, 100)), Asked(B, backward(0, 101))])
    singles, gradients = [], []
    for seed in range(2):
        single = new_middle()
        ask(single, forward(0, seed))
        gradients.append(ask(single, backward(0, 100 + seed))[0].packed)
        singles.append(delta(single))
    np.testing.assert_allclose(delta(middle), staleness_weight(0, 2, company=1) * sum(singles), rtol=0, atol=1e-6)
    for answer, expected in zip(answers, gradients, strict=True):
        given, wanted = (unpack_rows(packed, "float32", ROWS, BEFORE) for packed in (answer.packed, expected))
        np.testing.assert_allclose(given, wanted, rtol=0, atol=1e-6)


def test_an_optimiser_that_does_not_add_up_takes_one_gradient_after_the_other():
    together, alone = new_middle(A, B, optimiser="adam"), new_middle(A, B, optimiser="adam")
    for middle in (together, alone):
        middle.answer([Asked(A, forward(0, 0)), Asked(B, forward(0, 1))])
    together.answer([Asked(A, backward(0, 100)), Asked(B, backward(0, 101))])
    alone.answer([Asked(A, backward(0, 100))])
    alone.answer([Asked(B, backward(0, 101))])
    np.testing.assert_array_equal(delta(together), delta(alone))


def test_a_stale_pass_moves_the_weights_by_less():
    fresh, stale = new_middle(A), new_middle(A, B)
    ask(fresh, forward(0))
    ask(fresh, backward(0))
    ask(stale, forward(0))
    stale.answer([Asked(B, forward(0, 1))])
    stale.answer([Asked(B, backward(0, 101, scale=0.0))])
    ask(stale, backward(0))
    np.testing.assert_allclose(delta(stale), 0.5 * delta(fresh), rtol=0, atol=1e-7)


def test_a_pass_counts_as_one_of_all_sessions_that_train_the_block_though_they_take_turns():
    alone, shared = new_middle(A), new_middle(A, B)
    for middle in (alone, shared):
        ask(middle, forward(0))
        ask(middle, backward(0))
    np.testing.assert_allclose(delta(shared), 0.5 * delta(alone), rtol=0, atol=1e-7)


def test_without_update_the_gradient_passes_and_nothing_is_trained():
    middle = new_middle()
    ask(middle, forward(0))
    (answer,) = ask(middle, backward(0, update=False))
    assert np.count_nonzero(unpack_rows(answer.packed, "float32", ROWS, BEFORE))
    assert contribution_of(middle) is None


def test_a_backward_pass_is_applied_once():
    middle = new_middle()
    ask(middle, forward(0))
    ask(middle, backward(0))
    assert "no forward pass" in problem(middle, backward(0))
    assert contribution_of(middle).steps == 1


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (forward(0, first=0, end=1), "not the helper's in cut"),
        (forward(0, first=1, end=3), "not the helper's in cut"),
        (forward(0, first=2, end=2), "not the helper's in cut"),
        (forward(0, rows=TASK.training.batch_size + 1), "at most 32"),
        (forward(0, rows=5), "wrong_shape"),
        (forward(0, wire="int8"), "travel as float32, not int8"),
        (forward(0, packed=b""), "malformed"),
        (forward(0, packed=pack_activations(np.full((ROWS, *BEFORE), np.inf, np.float32), "float32")), "not_finite"),
        (backward(7), "no forward pass"),
        (backward(0, rows=2, packed=pack_activations(values(1, *AFTER)[:2], "float32")), "with 4 rows"),
        (backward(0, seed=9), "seed 0"),
        (backward(0, scale=3e37), "block 1"),
    ],
)
def test_what_no_honest_device_asks_is_refused_and_hurts_nobody(request_, words):
    middle = new_middle(A, B)
    middle.answer([Asked(A, forward(0)), Asked(B, forward(0, 1))])
    with np.errstate(all="ignore"):
        answers = middle.answer([Asked(A, request_), Asked(B, backward(0, 101))])
    assert words in answers[0].problem
    assert len(answers[0].problem) <= MAX_PROBLEM_CHARACTERS
    assert not answers[1].problem
    expected = new_middle(A, B)
    expected.answer([Asked(B, forward(0, 1))])
    expected.answer([Asked(B, backward(0, 101))])
    np.testing.assert_allclose(delta(middle), delta(expected), rtol=0, atol=1e-6)


def test_a_session_that_is_not_open_is_refused():
    middle = new_middle(A)
    assert "not open" in problem(middle, forward(0), session=B)
    ask(middle, forward(0))
    middle.close(A)
    assert "not open" in problem(middle, backward(0))
    assert middle.kept_bytes == 0


def test_one_session_does_not_see_what_another_left():
    middle = new_middle(A, B)
    ask(middle, forward(0))
    assert "no forward pass" in problem(middle, backward(0), session=B)


def test_who_keeps_the_most_pays_for_the_limit():
    size = values(0, *BEFORE).nbytes
    middle = new_middle(A, B, kept_bytes=5 * size, most_in_flight=8)
    middle.answer([Asked(B, forward(0, 1))])
    for step in range(20):
        ask(middle, forward(step))
    assert middle.kept_bytes <= 5 * size
    assert "any more" in problem(middle, backward(0))
    (answer,) = middle.answer([Asked(B, backward(0, 101))])
    assert not answer.problem


def test_a_session_keeps_as_many_passes_as_may_be_under_way_and_abandoned():
    middle = new_middle(most_in_flight=2)
    for step in range(10):
        ask(middle, forward(step))
    kept = [step for step in range(10) if not ask(middle, backward(step))[0].problem]
    assert kept == list(range(10 - MOST_ABANDONED * 2, 10))


def test_samples_of_a_session_count_once_however_often_they_pass():
    middle = new_middle()
    middle.open(B, CUT, samples=6)
    for step in range(3):
        middle.answer([Asked(A, forward(step)), Asked(B, forward(step, 1))])
        middle.answer([Asked(A, backward(step)), Asked(B, backward(step, 101))])
    assert contribution_of(middle).held == [0, 3 * ROWS + 6, 0]


def test_sessions_that_follow_each_other_contribute_what_each_has_changed():
    whole, parts = new_middle(), new_middle()
    learned = np.zeros(TASK.parameter_count, np.float32)
    for step in range(3):
        for middle in (whole, parts):
            ask(middle, forward(step))
            ask(middle, backward(step, 100 + step))
        learned += delta(parts)
        parts.open(A, CUT)
    np.testing.assert_allclose(learned, delta(whole), rtol=0, atol=1e-6)


def test_a_session_stands_for_all_that_was_changed_while_it_was_open():
    """A is there for two steps and B for the second: of what they leave, A's change counts for twice B's samples."""
    changes = {}
    for sessions, rows in (((A,), 2 * ROWS), ((B,), ROWS), ((A, B), 3 * ROWS)):
        middle = new_middle()
        ask(middle, forward(0))
        ask(middle, backward(0))
        middle.open(B, CUT)
        middle.answer([Asked(A, forward(1)), Asked(B, forward(1, 1))])
        middle.answer([Asked(A, backward(1)), Asked(B, backward(1, 101))])
        for session in sessions:
            middle.close(session)
        made = middle.take_contribution()
        assert made.held == [0, rows, 0]
        changes[sessions] = made.delta
    np.testing.assert_allclose(3 * changes[A, B], 2 * changes[A,] + changes[B,], rtol=0, atol=1e-6)
    assert np.linalg.norm(changes[A,]) > np.linalg.norm(changes[B,])


def test_who_has_trained_nothing_leaves_nothing_though_others_have():
    middle = new_middle(A, B)
    ask(middle, forward(0))
    ask(middle, backward(0))
    middle.close(B)
    assert middle.take_contribution() is None
    assert contribution_of(middle).held == [0, ROWS, 0]


def test_a_change_far_beyond_the_usual_is_refused_once_it_is_known():
    changes = UsualChanges(largest=1000.0)
    assert not changes.why_refused(900)
    for _ in range(FEWEST):
        changes.count(1.0)
    assert not changes.why_refused(MOST_TIMES)
    assert "times the usual change" in changes.why_refused(MOST_TIMES + 1)
    assert "at most 1000" in changes.why_refused(1001)
    assert changes.why_refused(float("nan"))


def test_who_comes_when_another_has_learned_all_it_can_is_not_refused():
    changes = UsualChanges(largest=1000.0)
    for step in range(1000):
        assert not changes.why_refused(0.99**step)
        changes.count(0.99**step)
    assert not changes.why_refused(MOST_TIMES * 0.9)
    assert changes.why_refused(MOST_TIMES * 1.1)


def test_a_flood_of_unusual_gradients_leaves_the_middle_to_the_others():
    """The absurd ones are refused, also where they come together with honest ones."""
    middle, honest = new_middle(A, B), new_middle(A, B)
    for step in range(FEWEST + 4):
        for each in (middle, honest):
            each.answer([Asked(B, forward(step, step))])
        absurd = [Asked(A, forward(step)), Asked(A, backward(step, scale=1e6))] if step > FEWEST else []
        for request in absurd:
            middle.answer([request])
        for each in (middle, honest):
            each.answer([Asked(B, backward(step, 200 + step))])
    np.testing.assert_allclose(delta(middle), delta(honest), rtol=0, atol=1e-6)
