"""A device's round with a model of its own, on the real graphs: each method does what its paper's algorithm says."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from edge_agent.core.sample_budget import steps_of_round
from edge_agent.training.compression import unpack
from edge_agent.training.engine import BatchPlan, Rates, plan_batches
from edge_agent.training.personal.adaptation import adapt, train_to_adapt
from edge_agent.training.personal.ditto import train_copy
from edge_agent.training.personal.parts import steps_alone, train_in_turn
from edge_agent.training.personal.steps import Steps
from edge_agent.training.round import DivergedError
from edge_agent.worker.contract import TrainingResult, Withheld
from fleet_protocol.codec import HeldBlocks, device_model, own_places, with_own
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.sending_plan import SendingPlan
from fleet_protocol.update_plan import UpdatePlan
from tests.support.digits_rounds import ENGINE, NOTHING, RUNNER, START, digits, learned, stored, take
from tests.support.hidden_devices import hiding_plan
from tests.support.personal_task import HEAD, moved, personal

DENSE = UpdatePlan(1.0, "float32", "dense")
TWO_CLASSES = digits(np.arange(300) % 2)
FEDPER = personal(parameters=HEAD)
FEDREP = personal(parameters=HEAD, first_steps=30)
RATES = Rates(0.3)


def batches_of(samples, steps: int, seed: int = 0) -> BatchPlan:
    return plan_batches(len(samples), steps, 16, seed)


def steps_of(samples, steps: int, rate: float = 0.3) -> Steps:
    return Steps(ENGINE, samples, batches_of(samples, steps), Rates(rate))


def step(weights, samples, batches: BatchPlan, number: int, rate: float = 0.3):
    """One step of SGD by itself."""
    rows = slice(number, number + 1)
    return ENGINE.train(weights, samples, BatchPlan(batches.rows[rows], batches.mask[rows], 0), Rates(rate))[0]


def sent_by(result: TrainingResult, task) -> np.ndarray:
    """The change f32[P] that the coordinator adds."""
    delta = np.zeros(task.trained_count, np.float32)
    unpack(result.packed, HeldBlocks.of(task, result.held)).add_to(delta)
    return delta


def test_single_steps_compute_what_one_call_of_all_steps_does():
    batches = batches_of(TWO_CLASSES, 12)
    whole, losses = ENGINE.train(START, TWO_CLASSES, batches, RATES)
    singly, other = steps_of(TWO_CLASSES, 12).singly(START, lambda _step, _before, after: after)
    np.testing.assert_array_equal(whole, singly)
    np.testing.assert_array_equal(losses, other)


def test_what_is_personal_is_kept_and_not_sent():
    task = msgspec.structs.replace(FEDPER, update=DENSE)
    result = take(stored(TWO_CLASSES, task), task)
    plain = msgspec.structs.replace(task, personal=None)
    both = START + sent_by(take(stored(TWO_CLASSES, plain), plain), plain)
    sent = sent_by(result, task)
    assert moved(START, START + sent, task) == {"1.weight", "1.bias"}
    model = with_own(START + sent, result.own, task)
    np.testing.assert_allclose(model, both, atol=1e-6)
    assert moved(START, model, task) == {"1.weight", "1.bias", *HEAD}
    assert not np.frombuffer(result.residual, np.float32).any()


@pytest.mark.parametrize("task", [FEDPER, FEDREP], ids=["fedper", "fedrep"])
def test_the_next_round_goes_on_from_what_the_last_one_kept(task):
    first = take(stored(TWO_CLASSES, task), task)
    again = take(stored(TWO_CLASSES, task), task, replace(NOTHING, seed=1, own=first.own))
    anew = take(stored(TWO_CLASSES, task), task, replace(NOTHING, seed=1))
    assert again.loss < anew.loss
    assert again.own != first.own


def test_compression_leaves_nothing_of_the_personal_part_behind():
    task = msgspec.structs.replace(FEDPER, update=UpdatePlan(0.1))
    result = take(stored(TWO_CLASSES, task), task)
    residual = np.frombuffer(result.residual, np.float32)
    assert residual.any()
    assert not residual[own_places(task)].any()


def test_norms_that_rules_go_by_are_of_what_is_shared():
    task = msgspec.structs.replace(FEDPER, update=DENSE)
    result = take(stored(TWO_CLASSES, task), task)
    assert result.usual_norm == pytest.approx(float(np.linalg.norm(sent_by(result, task))), rel=1e-5)


def test_personal_part_is_trained_first_and_alone_then_the_shared_one():
    own = own_places(FEDREP)
    batches = batches_of(TWO_CLASSES, 5)
    found, _ = train_in_turn(steps_of(TWO_CLASSES, 5), START, own, 2)
    expected = START
    for number in range(5):
        expected = np.where(own if number < 2 else ~own, step(expected, TWO_CLASSES, batches, number), expected)
    np.testing.assert_array_equal(found, expected)
    only_first, _ = train_in_turn(steps_of(TWO_CLASSES, 5), START, own, 5)
    assert moved(START, only_first, FEDREP) == set(HEAD)


@pytest.mark.parametrize(
    ("first", "planned", "steps", "alone"), [(30, 60, 60, 30), (30, 60, 20, 10), (1, 60, 5, 1), (59, 60, 2, 1)]
)
def test_short_rounds_train_both_parts(first, planned, steps, alone):
    assert steps_alone(first, planned, steps) == alone


def test_round_of_one_step_trains_both_at_once():
    training = msgspec.structs.replace(FEDREP.training, epochs_per_round=1)
    task = msgspec.structs.replace(FEDREP, training=training, update=DENSE)
    few = digits(np.arange(10) % 2)
    assert steps_of_round(training, 10) == 1
    result = take(stored(few, task), task)
    assert moved(START, with_own(START + sent_by(result, task), result.own, task), task) == {
        "1.weight",
        "1.bias",
        *HEAD,
    }


def test_a_personal_round_that_makes_validation_samples_worse_keeps_nothing():
    samples = stored(digits(np.arange(300) % 10), FEDPER)
    mislabelled = replace(samples.training, labels=(samples.training.labels + 1) % 10)
    withheld = take(replace(samples, training=mislabelled), FEDPER, weights=learned())
    assert isinstance(withheld, Withheld)
    assert (withheld.why, withheld.own) == ("worse", None)


def test_personal_head_learns_names_that_the_fleet_does_not_use():
    """The fleet knows ten classes; this device calls each like the next one."""
    renamed = replace(digits(np.arange(300) % 10, seed=3), labels=(np.arange(300) + 1) % 10)
    own = b""
    for seed in range(3):
        result = take(stored(renamed, FEDREP), FEDREP, replace(NOTHING, seed=seed, own=own), weights=learned())
        assert isinstance(result, TrainingResult)
        own = result.own
    test = replace(digits(np.arange(200) % 10, seed=4), labels=(np.arange(200) + 1) % 10)
    assert RUNNER.evaluate_features(learned(), test).accuracy < 0.2
    assert RUNNER.evaluate_features(device_model(learned(), own, FEDREP), test).accuracy > 0.8


def test_ditto_steps_by_its_equation():
    batches = batches_of(TWO_CLASSES, 4)
    shared = learned()
    count = FEDPER.trained_count
    found = train_copy(steps_of(TWO_CLASSES, 4), START, shared, 0.5, count)
    expected = START
    for number in range(4):
        gradient_step = step(expected, TWO_CLASSES, batches, number) - expected
        expected = expected + gradient_step - np.float32(0.3 * 0.5) * (expected - shared)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("pull", [0.0, 1.0])
def test_dittos_copy_is_never_sent_and_the_shared_round_is_as_without_it(pull):
    plain = msgspec.structs.replace(personal(method="ditto"), personal=None)
    task = personal(method="ditto", pull=pull)
    result, without = take(stored(TWO_CLASSES, task), task), take(stored(TWO_CLASSES, plain), plain)
    assert (result.packed, result.residual, result.loss) == (without.packed, without.residual, without.loss)
    copy = device_model(START, result.own, task)
    assert moved(START, copy, task) == {"1.weight", "1.bias", *HEAD}
    again = take(stored(TWO_CLASSES, task), task, replace(NOTHING, seed=1, own=result.own))
    assert again.own != result.own
    assert again.packed == take(stored(TWO_CLASSES, plain), plain, replace(NOTHING, seed=1)).packed


def test_the_stronger_the_pull_the_nearer_a_copy_stays():
    distances = []
    for pull in (0.0, 0.3, 3.0):
        task = personal(method="ditto", pull=pull)
        result = take(stored(TWO_CLASSES, task), task)
        distances.append(float(np.linalg.norm(device_model(START, result.own, task) - START)))
    assert distances[0] > distances[1] > distances[2] > 0


def test_ditto_learns_although_the_shared_round_is_withheld():
    """What the fleet would not gain by, the device may."""
    task = msgspec.structs.replace(personal(method="ditto"), sending=SendingPlan("better", 1.0))
    withheld = take(stored(TWO_CLASSES, task), task, weights=learned())
    assert isinstance(withheld, Withheld)
    assert withheld.why == "no_better"
    copy = device_model(START, withheld.own, task)
    assert RUNNER.evaluate_features(copy, TWO_CLASSES).accuracy > 0.9


@pytest.mark.parametrize(("rule", "why"), [("relevant", "irrelevant"), ("better", "no_better")])
def test_personal_part_learns_although_the_shared_one_is_not_sent(rule, why):
    task = msgspec.structs.replace(FEDPER, sending=SendingPlan(rule, 1.0))
    earlier = replace(NOTHING, last_weights=START - 1)
    withheld = take(stored(TWO_CLASSES, task), task, earlier, weights=learned())
    assert isinstance(withheld, Withheld)
    assert withheld.why == why
    assert moved(learned(), with_own(learned(), withheld.own, task), task) == set(HEAD)


GOOD = 0.9
ABSURD = np.random.default_rng(5).normal(0, 1e3, START.size).astype(np.float32)


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize("scale", [1.0, 1e30])
def test_a_head_that_has_gone_bad_begins_anew(scale, validation):
    kept = (np.float32(scale) * ABSURD)[own_places(FEDPER)].tobytes()
    samples = stored(digits(np.arange(300) % 10), FEDPER)
    if not validation:
        samples = replace(samples, validation=samples.validation.take(np.arange(0)))
    result = take(samples, FEDPER, replace(NOTHING, own=kept), weights=learned())
    assert isinstance(result, TrainingResult)
    model = device_model(learned(), result.own, FEDPER)
    assert RUNNER.evaluate_features(model, samples.training).accuracy > GOOD


@pytest.mark.parametrize("scale", [1.0, 1e30])
def test_a_copy_that_has_gone_bad_begins_anew(scale):
    task = personal(method="ditto")
    samples = stored(digits(np.arange(300) % 10), task)
    result = take(samples, task, replace(NOTHING, own=(np.float32(scale) * ABSURD).tobytes()), weights=learned())
    model = device_model(learned(), result.own, task)
    assert RUNNER.evaluate_features(model, samples.training).accuracy > GOOD


def test_what_a_clip_leaves_away_of_what_is_shared_is_left_away_whatever_is_personal():
    hidden = PrivacyPlan(devices=hiding_plan(clip=0.1))
    task = msgspec.structs.replace(personal(parameters=("1.*",)), privacy=hidden, update=DENSE)
    result = take(stored(TWO_CLASSES, task), task)
    assert np.linalg.norm(sent_by(result, task)) == pytest.approx(0.1, rel=0.05)
    np.testing.assert_allclose(np.frombuffer(result.residual, np.float32), 0, atol=1e-6)


def test_maml_that_diverges_on_its_only_batch_says_so():
    task = personal(method="maml")
    training = msgspec.structs.replace(task.training, epochs_per_round=1, learning_rate=1e38)
    with pytest.raises(DivergedError, match="training diverged at step"):
        take(stored(digits(np.arange(10) % 2)), msgspec.structs.replace(task, training=training))


def test_first_order_maml_steps_by_its_equation():
    batches = batches_of(TWO_CLASSES, 6)
    found, losses = train_to_adapt(steps_of(TWO_CLASSES, len(batches.rows)), START, 0.1)
    expected = START
    for pair in range(3):
        adapted = step(expected, TWO_CLASSES, batches, 2 * pair, rate=0.1)
        expected = expected + (step(adapted, TWO_CLASSES, batches, 2 * pair + 1) - adapted)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert losses.shape == (6,)
    assert np.isfinite(losses).all()


def test_maml_on_one_batch_takes_it_twice():
    batches = batches_of(TWO_CLASSES, 1)
    found, _ = train_to_adapt(steps_of(TWO_CLASSES, len(batches.rows)), START, 0.1)
    adapted = step(START, TWO_CLASSES, batches, 0, rate=0.1)
    np.testing.assert_allclose(found, START + (step(adapted, TWO_CLASSES, batches, 0) - adapted), atol=1e-6)


@pytest.mark.parametrize("method", ["reptile", "maml"])
def test_a_device_answers_with_the_shared_model_adapted_to_its_samples(method):
    task = personal(method=method, adaptation_steps=4, adaptation_rate=0.2)
    samples = stored(TWO_CLASSES, task)
    result = take(samples, task)
    expected = adapt(steps_of(samples.training, 4, rate=0.2), START)
    np.testing.assert_array_equal(device_model(START, result.own, task), expected)


def test_reptile_sends_what_every_round_sends_and_maml_does_not():
    plain = msgspec.structs.replace(personal(method="reptile"), personal=None)
    without = take(stored(TWO_CLASSES, plain), plain)
    for method, same in (("reptile", True), ("maml", False)):
        task = personal(method=method)
        assert (take(stored(TWO_CLASSES, task), task).packed == without.packed) is same


def test_an_adaptation_that_makes_validation_samples_worse_is_given_up():
    task = personal(method="reptile", adaptation_steps=60)
    samples = stored(digits(np.arange(300) % 10), task)
    mislabelled = replace(samples.training, labels=(samples.training.labels + 1) % 10)
    before = np.zeros(task.parameter_count, np.float32).tobytes()
    withheld = take(replace(samples, training=mislabelled), task, replace(NOTHING, own=before), weights=learned())
    assert isinstance(withheld, Withheld)
    assert withheld.own == b""
    np.testing.assert_array_equal(device_model(learned(), withheld.own, task), learned())


def test_an_adaptation_that_makes_them_worse_is_given_up_although_the_round_is_sent():
    task = personal(method="reptile", adaptation_rate=1e6)
    result = take(stored(TWO_CLASSES, task), task, replace(NOTHING, own=START.tobytes()))
    assert isinstance(result, TrainingResult)
    assert result.own == b""
