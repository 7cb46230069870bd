"""No round shuts a device out: what it sends is taken, and what one bad round left behind is gone soon."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_coordinator.admission.consumer import Offered
from broker_coordinator.consumers.update import admit
from bundle_runtime.samples import Samples
from edge_agent.training.compression import MAX_REMEMBERED_UPDATES
from edge_agent.training.engine import Rates
from edge_agent.training.round import DivergedError, Earlier, train_round
from edge_agent.worker.contract import Returned, TrainingResult
from fleet_protocol.bundle import parse_description
from fleet_protocol.codec import Quantisation, decode_update
from fleet_protocol.envelope import Header
from fleet_protocol.kinds import UPDATE, Update
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.update_plan import UpdatePlan

DIGITS = parse_description((Path(__file__).parents[2] / "models/digits/bundle/task.json").read_bytes())
LARGEST = DIGITS.largest_delta_norm
WEIGHTS = np.zeros(DIGITS.parameter_count, np.float32)
SAMPLES = Samples(np.full((20, 64), 0.5, np.float32), np.zeros(20, np.int64), 20)


class Learns:
    """An engine whose rounds change the weights by a vector of this norm."""

    def __init__(self, norm: float, loss: float = 1.0, seed: int = 7) -> None:
        direction = np.random.default_rng(seed).standard_normal(WEIGHTS.size)
        self._delta = (norm * direction / np.linalg.norm(direction)).astype(np.float32)
        self._loss = loss

    def train(self, weights, samples, plan, rates: Rates, on_progress=None):
        """See `TrainingEngine.train`."""
        return weights + self._delta, np.full(len(plan.rows), self._loss, np.float32)


def task(**plan: object) -> TaskDescription:
    update = UpdatePlan(**({"keep_fraction": 0.1} | plan))  # type: ignore[arg-type]
    return msgspec.structs.replace(DIGITS, update=update)


def round_of(engine: Learns, residual: bytes = b"", returned: tuple[Returned, ...] = (), **plan) -> TrainingResult:
    return train_round(engine, WEIGHTS, SAMPLES, task(**plan), Earlier(residual, returned, 0, 1))


def admitted_norm(result: TrainingResult, description: TaskDescription = DIGITS) -> float:
    """What the coordinator says of the update; it raises where it refuses it."""
    update = Update(result.samples, result.steps, result.loss, result.packed, result.life)
    return admit(Offered("pi", Header(UPDATE, 1, "digits", 3, bytes(16)), update, description, 0)).facts.norm


@pytest.mark.parametrize("selection", ["top_k", "top_k_per_tensor", "random_k", "dense", "threshold"])
@pytest.mark.parametrize("quantisation", [each.name.lower() for each in Quantisation])
@pytest.mark.parametrize("feedback", ["residual", "momentum", "ef21"])
def test_whatever_earlier_rounds_left_behind_the_next_update_is_admitted(feedback, quantisation, selection):
    plan = {"feedback": feedback, "quantisation": quantisation, "selection": selection, "threshold": 1e-3}
    residual = b""
    for seed in range(4):
        result = round_of(Learns(90.0, seed=seed), residual, **plan)
        assert 0 < admitted_norm(result) <= LARGEST
        residual = result.residual


@pytest.mark.parametrize("norm", [386.0, 7459.0, 1e30])
def test_one_absurd_residual_is_sent_in_parts_that_are_admitted_and_the_rest_is_bounded(norm):
    direction = np.random.default_rng(1).standard_normal(WEIGHTS.size)
    residual = (norm * direction / np.linalg.norm(direction)).astype(np.float32).tobytes()
    left = []
    for _ in range(60):
        result = round_of(Learns(2.0), residual)
        assert admitted_norm(result) <= LARGEST
        residual = result.residual
        left.append(float(np.linalg.norm(np.frombuffer(residual, np.float32))))
    assert max(left) <= MAX_REMEMBERED_UPDATES * LARGEST * (1 + 1e-6)
    assert left[-1] < 50


def test_round_on_unscaled_readings_is_dropped_and_later_ones_on_good_data_all_pass():
    """A round whose own update has norm 386 used to shut a device out: 46 later rounds were refused."""
    before = round_of(Learns(2.0))
    with pytest.raises(DivergedError, match=r"norm \d+.*at most 100 \(max_delta_norm\) is taken.*inputs 0\.5 to 0\.5"):
        round_of(Learns(1500.0, loss=2.7e11), before.residual)
    residual = before.residual
    for seed in range(46):
        result = round_of(Learns(2.0, seed=seed), residual)
        assert admitted_norm(result) < 10
        residual = result.residual


def test_76_refused_updates_go_back_and_the_next_one_is_admitted():
    """A broker that withheld manifests for 24 s made a residual of norm 7,459, and nothing was delivered after that."""
    residual, returned = b"", ()
    for seed in range(76):
        result = round_of(Learns(99.0, seed=seed), residual, returned)
        assert admitted_norm(result) <= LARGEST
        residual, returned = result.residual, (Returned(result.packed),)


def test_refused_updates_of_ordinary_size_are_conserved():
    learned, residual, returned = np.zeros(WEIGHTS.size), b"", ()
    for seed in range(8):
        engine = Learns(2.0, seed=seed)
        result = round_of(engine, residual, returned)
        assert result.forgotten == 0
        learned += engine._delta
        residual, returned = result.residual, (Returned(result.packed),)
    kept = np.frombuffer(residual, np.float32).astype(np.float64)
    sent = decode_update(returned[0].packed, DIGITS.shapes)
    kept[sent.indices] += sent.values
    np.testing.assert_allclose(kept, learned, atol=1e-5)


@pytest.mark.parametrize("loss", [2.7e12, -1e13])
def test_loss_that_no_coordinator_takes_is_a_divergence(loss):
    with pytest.raises(DivergedError, match=r"mean loss is .*at most 1e\+12 is taken.*scale the inputs"):
        round_of(Learns(1.0, loss=loss))


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1e38), st.floats(0, 90), st.sampled_from(["ternary", "int8", "float32"]), st.floats(0.01, 1))
def test_any_finite_residual_gives_an_update_that_is_admitted(norm, own, quantisation, keep_fraction):
    residual = np.full(WEIGHTS.size, norm / WEIGHTS.size, np.float32).tobytes()
    result = round_of(Learns(own), residual, quantisation=quantisation, keep_fraction=keep_fraction)
    assert admitted_norm(result) <= LARGEST
