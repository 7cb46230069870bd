"""A round of which a helper runs some blocks equals the unsplit one; of a wrong answer nothing is left."""

import numpy as np
import pytest

from bundle_runtime.blocks import BlockRunner
from bundle_runtime.distance_correlation import penalty_gradient
from edge_agent.training.engine import BatchPlan
from edge_agent.training.onnx_step import OnnxStepEngine
from edge_agent.training.split.engine import MOST_TROUBLE
from edge_agent.training.split.exchange import SessionFailedError, SessionGone
from fleet_protocol.codec.activations import pack_activations
from fleet_protocol.sessions.steps import StepAnswer, StepRequest
from fleet_protocol.split_placement import held_of
from fleet_protocol.split_plan import Cut, is_helpers
from tests.support.split_session import (
    SESSION,
    Alter,
    DirectExchange,
    Received,
    as_it_is,
    batches_of,
    engine_of,
    middle_of,
    pictures,
    plan_of,
    rates_of,
    shipped,
    shipped_weights,
)

STEPS, SAMPLES = 12, 64
TASK = shipped().description
CUT = TASK.split.cuts[0]
SAMPLED = pictures(SAMPLES)
PLAN = batches_of(SAMPLED, STEPS, TASK.training.batch_size)


def unsplit() -> tuple[np.ndarray, np.ndarray]:
    return OnnxStepEngine.of_task(TASK, shipped().files).train(shipped_weights(), SAMPLED, PLAN, rates_of(TASK))


class Round:
    """One round on the shipped task, with the middle that it leaves behind."""

    def __init__(self, alter: Alter = as_it_is, **changes: object) -> None:
        self.plan = plan_of(TASK, **changes)
        self.exchange = DirectExchange(self.new_middle(), alter)
        self.engine = engine_of(shipped(), self.plan, CUT, self.exchange)

    def new_middle(self):
        middle = middle_of(shipped(), self.plan, shipped_weights())
        middle.open(SESSION, CUT, samples=SAMPLES)
        return middle

    def train(self) -> tuple[np.ndarray, np.ndarray]:
        return self.engine.train(shipped_weights(), SAMPLED, PLAN, rates_of(TASK))


def test_one_step_at_a_time_is_the_unsplit_round():
    expected, losses = unsplit()
    this = Round()
    trained, found = this.train()
    contribution = this.exchange.contribution()
    np.testing.assert_allclose(trained + contribution.delta, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found, losses, rtol=0, atol=1e-5)
    assert contribution.held == [0, SAMPLES, 0]
    assert held_of(this.plan, CUT, SAMPLES) == (SAMPLES, 0, SAMPLES)
    assert this.engine.abandoned == 0


def test_penalty_on_what_leaves_is_in_the_gradient_of_the_devices_first_blocks():
    """One step of it changes them by its gradient, and leaves the others as they are without it."""
    step = BatchPlan(PLAN.rows[:1], PLAN.mask[:1], PLAN.seed)
    free, held = Round(), Round(distance_correlation=300.0)
    weights, rates = shipped_weights(), rates_of(TASK)
    after = [each.engine.train(weights, SAMPLED, step, rates)[0] for each in (free, held)]
    runner, batch = BlockRunner(TASK, shipped().files, [0]), SAMPLED.take(step.rows[0])
    first, state = runner.weights_of(0, weights), runner.new_state(0)
    left = runner.forward(0, first, batch.inputs, seed=PLAN.seed)
    gradient = penalty_gradient(TASK, 300.0, batch.inputs, left)
    pulled = runner.backward(0, first, state, batch.inputs, gradient, seed=PLAN.seed, rates=rates).weights - first
    changes = [runner.weights_of(0, each) - first for each in after]
    assert np.abs(pulled).max() > 1e-3
    np.testing.assert_allclose(changes[1], changes[0] + pulled, rtol=0, atol=1e-6)
    place = [each.block != 0 for each in TASK.parameters]
    others = np.repeat(place, [each.size for each in TASK.parameters])
    assert np.array_equal(after[0][others], after[1][others])


def test_only_the_devices_blocks_change_and_the_others_are_not_read():
    this = Round()
    weights = shipped_weights()
    of_helper = np.repeat(
        [is_helpers(CUT, each.block) for each in TASK.parameters], [each.size for each in TASK.parameters]
    )
    weights[of_helper] = np.nan
    trained, losses = this.engine.train(weights, SAMPLED, PLAN, rates_of(TASK))
    assert np.isnan(trained[of_helper]).all()
    assert np.isfinite(trained[~of_helper]).all()
    assert (trained[~of_helper] != weights[~of_helper]).any()
    assert np.isfinite(losses).all()


def test_no_label_and_no_sample_is_in_what_is_asked():
    this = Round()
    this.train()
    images = {image.tobytes() for image in SAMPLED.inputs}
    assert {request.first for request in this.exchange.asked} == {1}
    assert not any(image[:256] in request.packed for request in this.exchange.asked for image in images)


@pytest.mark.parametrize("wire", ["float16", "int8"])
def test_a_narrower_format_learns_nearly_the_same(wire):
    expected, losses = unsplit()
    this = Round(activations=wire, gradients=wire)
    trained, found = this.train()
    whole = trained + this.exchange.contribution().delta
    assert np.linalg.norm(whole - expected) <= 0.1 * np.linalg.norm(expected - shipped_weights())
    np.testing.assert_allclose(found, losses, atol=0.05)


def test_several_steps_are_under_way_and_every_one_is_done():
    this = Round(most_in_flight=4)
    _, losses = this.train()
    assert this.exchange.most_waiting == 4
    assert np.isfinite(losses).all()
    assert sorted({request.step for request in this.exchange.asked}) == list(range(STEPS))


def first(times: int, alter: Alter) -> Alter:
    """The first so many answers are altered."""
    left = [times]

    def some(request: StepRequest, answer: StepAnswer) -> list[Received]:
        left[0] -= 1
        return alter(request, answer) if left[0] >= 0 else [answer]

    return some


def wrong_shape(_request: StepRequest, answer: StepAnswer) -> list[Received]:
    return [replace_packed(answer, pack_activations(np.ones((3, 2), np.float32), "float32"))]


def not_a_number(request: StepRequest, answer: StepAnswer) -> list[Received]:
    shape = plan_of(TASK).blocks[1 if request.direction == "forward" else 0].output_shape
    return [replace_packed(answer, pack_activations(np.full((request.rows, *shape), np.nan, np.float32), "float32"))]


def garbage(_request: StepRequest, answer: StepAnswer) -> list[Received]:
    return [replace_packed(answer, b"\xff" * 40)]


def nothing(_request: StepRequest, answer: StepAnswer) -> list[Received]:
    return [replace_packed(answer, b"")]


def problem(_request: StepRequest, answer: StepAnswer) -> list[Received]:
    return [StepAnswer(answer.number, b"", "no memory")]


def old_answer(_request: StepRequest, answer: StepAnswer) -> list[Received]:
    return [StepAnswer(10**6, answer.packed), answer]


def twice(_request: StepRequest, answer: StepAnswer) -> list[Received]:
    return [answer, answer]


def replace_packed(answer: StepAnswer, packed: bytes) -> StepAnswer:
    return StepAnswer(answer.number, packed)


WRONG = [wrong_shape, not_a_number, garbage, nothing, problem]


@pytest.mark.parametrize("alter", WRONG)
def test_a_wrong_answer_abandons_the_step_which_begins_anew(alter):
    this = Round(first(3, alter))
    trained, losses = this.train()
    assert this.engine.abandoned == 3
    assert np.isfinite(losses).all()
    assert np.isfinite(trained).all()


@pytest.mark.parametrize("alter", WRONG)
def test_a_helper_that_answers_nothing_but_wrong_is_given_up(alter):
    this = Round(alter)
    with pytest.raises(SessionFailedError, match=f"{MOST_TROUBLE}th time"):
        this.train()
    assert len(this.exchange.asked) == MOST_TROUBLE


@pytest.mark.parametrize("alter", [old_answer, twice])
def test_an_answer_that_nothing_waits_for_changes_nothing(alter):
    expected, _ = unsplit()
    this = Round(first(4, alter))
    trained, _ = this.train()
    assert this.engine.abandoned == 0
    np.testing.assert_allclose(trained + this.exchange.contribution().delta, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("in_flight", [1, 4])
def test_an_abandoned_step_changes_none_of_the_devices_blocks(in_flight):
    """Every backward answer is wrong: each step trains the last block, and is taken back."""
    this = Round(lambda request, answer: [answer] if request.direction == "forward" else garbage(request, answer))
    this.plan = plan_of(TASK, most_in_flight=in_flight)
    taken = []
    real = this.engine._runner.last

    def last(weights, *arguments, **named):
        taken.append(weights)
        return real(weights, *arguments, **named)

    this.engine._runner.last = last
    with pytest.raises(SessionFailedError):
        this.train()
    assert len(taken) == MOST_TROUBLE
    assert all(np.array_equal(weights, taken[0]) for weights in taken)


def test_a_session_that_moves_goes_on_with_another_middle_from_the_first_number():
    this = Round()
    moved = []

    def move(request: StepRequest, answer: StepAnswer) -> list[Received]:
        if len(this.exchange.asked) == 9 and not moved:
            moved.append(request)
            this.exchange.middle = this.new_middle()
            return [SessionGone("helper is gone", moved=True)]
        return [answer]

    this.exchange.alter = move
    _, losses = this.train()
    assert np.isfinite(losses).all()
    assert [request.number for request in this.exchange.asked] == [*range(1, 10), *range(1, 2 * STEPS - 7)]
    assert this.engine.abandoned == 1


def test_a_session_that_is_lost_ends_the_round_with_its_words():
    this = Round(lambda _request, _answer: [SessionGone("no helper for 60 s")])
    with pytest.raises(SessionFailedError, match="no helper for 60 s"):
        this.train()


def test_weights_that_overflow_end_the_round_with_a_loss_that_is_no_number():
    this = Round()
    weights = shipped_weights()
    weights[:] = 1e38
    with np.errstate(all="ignore"):
        _, losses = this.engine.train(weights, SAMPLED, PLAN, rates_of(TASK))
    assert np.isnan(losses[-1])
    assert not this.exchange.asked


def test_a_cut_with_nothing_at_a_helper_asks_nobody():
    expected, _ = unsplit()
    this = Round()
    this.engine = engine_of(shipped(), this.plan, Cut("whole", []), this.exchange)
    trained, _ = this.train()
    np.testing.assert_allclose(trained, expected, rtol=0, atol=1e-5)
    assert not this.exchange.asked


def test_progress_is_told_with_the_losses_so_far():
    this, told = Round(), []
    this.engine.train(
        shipped_weights(), SAMPLED, PLAN, rates_of(TASK), lambda done, losses: told.append((done, losses.size))
    )
    assert told[-1] == (STEPS, STEPS)
    assert all(done == count for done, count in told)
