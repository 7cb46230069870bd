"""A device's corrected round on the real graphs: what it adds and leaves, and what it does when that goes wrong."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from edge_agent.training.client_drift.adaptive_proximal import Adapted
from edge_agent.training.client_drift.control_variates import LONGEST_CORRECTION, gradient_of, length
from edge_agent.training.client_drift.steering import DriftMemory
from edge_agent.training.compression import unpack
from edge_agent.training.engine import EngineError, Rates, plan_batches
from edge_agent.training.onnx_step import OnnxStepEngine
from edge_agent.training.own_limits import take_part
from edge_agent.training.round import DivergedError, Earlier, OtherUnitsError
from edge_agent.worker.contract import TrainingResult, Withheld
from fleet_protocol.bundle_files import TRAIN_FILE
from fleet_protocol.codec import HeldBlocks
from fleet_protocol.sending_plan import ALWAYS, SendingPlan
from fleet_protocol.update_plan import UpdatePlan
from tests.support.digits_rounds import BUNDLE, ENGINE, NOTHING, RUNNER, START, TASK, digits, learned, stored
from tests.support.drift_task import corrected_graph, correcting

DENSE = msgspec.structs.replace(TASK, update=UpdatePlan(1.0, "float32", "dense"))
TASK_CORRECTED = correcting(DENSE, validation_share=0.0)
ADAPTING = correcting(DENSE, correction="off", adaptive_proximal=True, proximal=0.3)
PLAN = TASK_CORRECTED.training
TWO_CLASSES = stored(digits(np.arange(200) % 2), TASK_CORRECTED)
NEXT = (START + np.random.default_rng(5).normal(0, 0.003, START.size)).astype(np.float32)
"""The version after the one that the device began with."""


@pytest.fixture(scope="module")
def engine() -> OnnxStepEngine:
    return OnnxStepEngine(corrected_graph(BUNDLE.files[TRAIN_FILE]), 1)


def run(engine, earlier: Earlier = NOTHING, weights: np.ndarray = START, task=TASK_CORRECTED, samples=TWO_CLASSES):
    return take_part(
        engine,
        weights,
        samples,
        task,
        earlier,
        evaluate=RUNNER.evaluate_features,
        predict=RUNNER.predict_features,
    )


def behind(result: TrainingResult, **more: object) -> Earlier:
    """What a round after it begins with, on the next version."""
    return replace(NOTHING, seed=1, drift=result.drift, last_weights=START, versions_since=1, **more)


def sent(result: TrainingResult) -> np.ndarray:
    delta = np.zeros(TASK.trained_count, np.float32)
    unpack(result.packed, HeldBlocks.of(TASK, ())).add_to(delta)
    return delta


def variate(drift: bytes | None) -> np.ndarray:
    return np.frombuffer(msgspec.msgpack.decode(drift, type=DriftMemory).variate, np.float32)


def test_first_round_is_a_plain_one_and_leaves_its_mean_gradient(engine):
    result = run(engine)
    plain = run(ENGINE, task=msgspec.structs.replace(DENSE, training=msgspec.structs.replace(PLAN, correction="off")))
    assert result.packed == plain.packed
    assert plain.drift is None
    expected = -sent(result) / (PLAN.learning_rate * result.steps)
    np.testing.assert_allclose(variate(result.drift), expected, rtol=1e-4, atol=1e-6)


def test_second_round_adds_the_fleets_direction_less_its_own(engine):
    """Algorithm 1 with option II, step by step, on the graph without a correction."""
    first = run(engine)
    found = run(engine, behind(first), NEXT)
    own, steps, rate = variate(first.drift), found.steps, np.float32(PLAN.learning_rate)
    fleet = (START - NEXT) / (rate * steps)
    added = fleet * min(1.0, length(own) / length(fleet)) - own
    batches = plan_batches(len(TWO_CLASSES.training), steps, PLAN.batch_size, 1)
    y, bound = NEXT, None
    for step in range(steps):
        rows = slice(step, step + 1)
        batch = replace(batches, rows=batches.rows[rows], mask=batches.mask[rows])
        after, _ = ENGINE.train(y, TWO_CLASSES.training, batch, Rates(PLAN.learning_rate))
        if bound is None:
            bound = LONGEST_CORRECTION * length(gradient_of(after - y, PLAN, 1))
            added = added * min(1.0, bound / length(added))
        y = after - rate * added
    np.testing.assert_allclose(sent(found), y - NEXT, atol=2e-5)
    np.testing.assert_allclose(variate(found.drift), (NEXT - y) / (rate * steps) - added, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "unknown",
    [{"drift": b""}, {"last_weights": None}, {"versions_since": 0}],
    ids=["nothing kept", "no earlier version", "the same version"],
)
def test_without_one_of_its_two_directions_a_round_is_a_plain_one_and_measures_anew(engine, unknown):
    known = behind(run(engine))
    found, plain = run(engine, replace(known, **unknown), NEXT), run(engine, replace(NOTHING, seed=1), NEXT)
    assert found.packed == plain.packed
    assert found.drift == plain.drift


@pytest.mark.parametrize("size", [1e3, 1e30])
def test_an_absurd_variate_moves_the_round_no_further_than_its_bound(engine, size):
    absurd = DriftMemory(np.full(TASK.trained_count, size, np.float32).tobytes())
    found = run(engine, replace(behind(run(engine)), drift=msgspec.msgpack.encode(absurd)), NEXT)
    assert isinstance(found, TrainingResult)
    plain = run(engine, replace(NOTHING, seed=1), NEXT)
    assert length(sent(found)) < 10 * length(sent(plain))
    assert length(variate(found.drift)) < 10 * length(variate(plain.drift)), "the round after it is right again"


def test_a_variate_of_another_length_is_none(engine):
    wrong = msgspec.msgpack.encode(DriftMemory(bytes(8)))
    assert run(engine, replace(behind(run(engine)), drift=wrong), NEXT) == run(engine, replace(NOTHING, seed=1), NEXT)


class Failing:
    """Its corrected rounds end in weights that are no numbers."""

    def __init__(self, engine: OnnxStepEngine, *, always: bool = False) -> None:
        self._engine, self._always = engine, always

    def train(self, weights, samples, plan, rates, *on_progress):
        trained, losses = self._engine.train(weights, samples, plan, rates, *on_progress)
        diverges = rates.correction is not None or (self._always and len(plan.rows) > 1)
        return (np.full_like(trained, np.nan) if diverges else trained), losses


def test_a_round_that_its_correction_makes_diverge_is_made_again_without(engine):
    known = behind(run(engine))
    assert run(Failing(engine), known, NEXT) == run(engine, replace(NOTHING, seed=1), NEXT)
    with pytest.raises(DivergedError):
        run(Failing(engine, always=True), known, NEXT)


def test_a_round_that_is_worse_with_and_without_it_is_withheld_and_leaves_nothing(engine):
    task = correcting(DENSE, validation_share=0.1)
    samples = stored(digits(np.arange(300) % 10), task)
    wrong = replace(samples, training=replace(samples.training, labels=(samples.training.labels + 1) % 10))
    first = run(engine, task=task, samples=samples, weights=learned())
    found = run(engine, replace(behind(first), last_weights=START), learned(), task, wrong)
    assert isinstance(found, Withheld)
    assert found.why == "worse"
    assert found.drift is None, "what is kept stays as it is"


def test_a_graph_without_the_input_is_not_fed_in_silence():
    known = behind(run(ENGINE))
    with pytest.raises(EngineError, match="its training graph takes no 'correction'; export the bundle again"):
        run(ENGINE, known, NEXT)


class Noting:
    """Notes the proximal coefficient of each round."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def train(self, weights, samples, plan, rates, *on_progress):
        self.seen.append(rates.proximal)
        return ENGINE.train(weights, samples, plan, rates, *on_progress)


def test_proximal_coefficient_follows_the_devices_own_losses():
    noting, samples = Noting(), stored(digits(np.arange(200) % 2), ADAPTING)
    first = run(noting, task=ADAPTING, samples=samples, weights=learned())
    risen = run(noting, replace(NOTHING, drift=first.drift), START, ADAPTING, samples)
    run(noting, replace(NOTHING, drift=risen.drift), START, ADAPTING, samples)
    assert noting.seen == pytest.approx([0.3, 0.3, 0.4])


def coefficient(drift: bytes | None) -> float:
    return msgspec.msgpack.decode(drift, type=DriftMemory).proximal.coefficient


def adapting(sending: SendingPlan = ALWAYS):
    training = msgspec.structs.replace(ADAPTING.training, validation_share=0.1)
    return msgspec.structs.replace(ADAPTING, training=training, sending=sending)


def test_a_round_that_diverges_raises_the_proximal_coefficient_and_compares_with_the_loss_before():
    first = run(ENGINE, task=ADAPTING)
    with pytest.raises(DivergedError) as caught:
        run(Failing(ENGINE, always=True), replace(NOTHING, drift=first.drift), START, ADAPTING)
    before, after = (msgspec.msgpack.decode(each, type=DriftMemory) for each in (first.drift, caught.value.drift))
    assert after.proximal.coefficient == pytest.approx(0.4)
    assert after.proximal.loss == before.proximal.loss


def test_samples_in_other_units_leave_the_proximal_coefficient_as_it_is(monkeypatch):
    """No pull makes them right."""
    monkeypatch.setattr("edge_agent.training.round.in_other_units", lambda *_: "input 0 has the mean 1e6")
    with pytest.raises(OtherUnitsError) as caught:
        run(ENGINE, task=ADAPTING)
    assert caught.value.drift is None


def test_a_round_that_is_worse_raises_the_proximal_coefficient():
    task = adapting()
    samples = stored(digits(np.arange(300) % 10), task)
    wrong = replace(samples, training=replace(samples.training, labels=(samples.training.labels + 1) % 10))
    found = run(ENGINE, NOTHING, learned(), task, wrong)
    assert (found.why, coefficient(found.drift)) == ("worse", pytest.approx(0.4))


@pytest.mark.parametrize(
    ("why", "sending"),
    [("irrelevant", SendingPlan("relevant", 1.0)), ("no_better", SendingPlan("better", 0.9))],
    ids=["relevant", "better"],
)
def test_a_round_that_a_rule_withholds_adapts_the_proximal_coefficient_as_one_that_is_sent(why, sending):
    task = adapting(sending)
    samples = stored(digits(np.arange(300) % 10), task)
    lower = msgspec.msgpack.encode(DriftMemory(proximal=Adapted(0.3, loss=0.0)))
    found = run(ENGINE, replace(NOTHING, drift=lower, last_weights=NEXT), learned(), task, samples)
    assert isinstance(found, Withheld)
    assert (found.why, coefficient(found.drift)) == (why, pytest.approx(0.4))
