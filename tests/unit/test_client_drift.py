"""What a device does against drift, as a few lines of NumPy have it; and which settings it goes with."""

import msgspec
import numpy as np
import pytest

from edge_agent.training.client_drift.adaptive_proximal import Adapted, adapted
from edge_agent.training.client_drift.control_variates import (
    LONGEST_CORRECTION,
    at_most,
    control_variate,
    correction,
    gradient_of,
    length,
    reach,
)
from fleet_protocol.bundle import parse_description
from fleet_protocol.client_drift import check_client_drift
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.gossip_plan import check_gossip
from fleet_protocol.personal_plan import PersonalPlan
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.privacy.sample_privacy import SamplePrivacy
from fleet_protocol.prompt_plan import PromptPlan
from fleet_protocol.training_plan import TrainingPlan
from tests.support.digits_rounds import TASK
from tests.support.drift_task import correcting

SIZE, STEPS = 6, 7
CENTRES = np.array([[3.0, 0, 1, 0, 2, 0], [-1.0, 2, 0, 0, 0, 1]], np.float32)
"""Two devices, each with a bowl of its own: the gradient at w is w less the device's centre."""


def plan(optimiser: str = "sgd", **settings: float) -> TrainingPlan:
    return TrainingPlan(STEPS, 1, 0.1, optimiser=optimiser, momentum=0.6, **settings)


def steps(weights: np.ndarray, centre: np.ndarray, added: np.ndarray, chosen: TrainingPlan) -> tuple:
    """The weights behind a round, and what gradients the steps had, as each optimiser's paper has it."""
    velocity, gradients = np.zeros(SIZE), []
    for _ in range(STEPS):
        gradients.append(weights - centre)
        gradient = gradients[-1] + added
        if chosen.optimiser != "sgd":
            velocity = chosen.momentum * velocity + gradient
            gradient = gradient + chosen.momentum * velocity if chosen.optimiser == "nesterov" else velocity
        weights = weights - chosen.learning_rate * gradient
    return weights, np.array(gradients)


@pytest.mark.parametrize("optimiser", ["sgd", "momentum", "nesterov"])
def test_a_steady_gradient_is_read_off_the_movement_whatever_the_optimiser(optimiser):
    chosen, steady = plan(optimiser), np.arange(SIZE, dtype=np.float32)
    weights, velocity = np.zeros(SIZE), np.zeros(SIZE)
    for _ in range(STEPS):
        velocity = chosen.momentum * velocity + steady
        taken = {"sgd": steady, "momentum": velocity, "nesterov": steady + chosen.momentum * velocity}[optimiser]
        weights = weights - chosen.learning_rate * taken
    np.testing.assert_allclose(gradient_of(weights, chosen, STEPS), steady, rtol=1e-5)


def test_control_variate_is_option_two_of_the_paper():
    chosen, x = plan(), np.full(SIZE, 0.5, np.float32)
    c_i, c = np.arange(SIZE, dtype=np.float32), np.ones(SIZE, np.float32)
    y, gradients = steps(x, CENTRES[0], c - c_i, chosen)
    found = control_variate((y - x).astype(np.float32), c - c_i, chosen, STEPS)
    np.testing.assert_allclose(found, c_i - c + (x - y) / (STEPS * chosen.learning_rate), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found, gradients.mean(axis=0), rtol=1e-4, atol=1e-5)


def test_corrected_devices_agree_where_plain_ones_stop_short():
    """Two bowls of unlike steepness: FedAvg ends beside the lowest point of their sum, SCAFFOLD on it."""
    chosen, steep = plan(), np.array([[1.0], [6.0]], np.float32)
    best = (steep * CENTRES).sum(axis=0) / steep.sum()

    def far_from_best(*, corrects: bool) -> float:
        w, last, variates = np.zeros(SIZE, np.float32), None, [None, None]
        for _ in range(60):
            moves = []
            for device in range(2):
                own, added = variates[device], None
                if corrects and last is not None:
                    first = steep[device] * (w - CENTRES[device])
                    added = correction(w - last, own, first.astype(np.float32), chosen, STEPS)
                y = w
                for _ in range(STEPS):
                    y = y - chosen.learning_rate * (
                        steep[device] * (y - CENTRES[device]) + (0 if added is None else added)
                    )
                variates[device] = control_variate((y - w).astype(np.float32), added, chosen, STEPS)
                moves.append(y - w)
            last, w = w, (w + np.mean(moves, axis=0)).astype(np.float32)
        return length(w - best)

    assert far_from_best(corrects=True) < 1e-3
    assert far_from_best(corrects=False) > 0.5


def test_absurd_but_finite_variates_give_a_bounded_correction():
    first = np.full(SIZE, 0.1, np.float32)
    for own in (np.full(SIZE, 1e30, np.float32), np.full(SIZE, -3e38, np.float32)):
        found = correction(np.ones(SIZE, np.float32), own, first, plan(), STEPS)
        assert found is None or length(found) <= LONGEST_CORRECTION * length(first) * 1.001
    moved = np.full(SIZE, 1e30, np.float32)
    found = correction(moved, first, first, plan(), STEPS)
    assert found is not None
    assert length(found) <= 2 * length(first) * 1.001
    nothing = correction(moved, first, np.full(SIZE, np.nan, np.float32), plan(), STEPS)
    assert nothing is None


def test_shorter_than_its_bound_it_stays_as_it_is():
    vector = np.array([3.0, 4.0], np.float32)
    assert at_most(vector, 5.0) is vector
    np.testing.assert_allclose(at_most(vector, 1.0), [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("optimiser", ["sgd", "momentum", "nesterov"])
@pytest.mark.parametrize("count", [1, 2, 40])
def test_reach_counts_what_each_gradient_moves(optimiser, count):
    chosen, moved, velocity = plan(optimiser), 0.0, 0.0
    for _ in range(count):
        velocity = chosen.momentum * velocity + 1
        moved += {"sgd": 1.0, "momentum": velocity, "nesterov": 1 + chosen.momentum * velocity}[optimiser]
    assert reach(chosen, count) == pytest.approx(moved)


def test_proximal_coefficient_rises_with_a_loss_and_falls_after_five_falls():
    """Li et al. 2020, section 5.3.2."""
    now, seen = Adapted(0.0), []
    for loss in [1.0, 2.0, 3.0, 2.9, 2.8, 2.7, 2.6, 2.5, 2.4, 2.3, 2.2, 2.1, 2.0, 2.0, 3.0]:
        now = adapted(now, loss, plan())
        seen.append(round(now.coefficient, 6))
    assert seen == [0.0, 0.1, 0.2, 0.2, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.0, 0.0, 0.1]


def test_proximal_coefficient_stays_between_nothing_and_what_a_step_can_bear():
    now = Adapted(9.95, 1.0)
    assert adapted(now, 2.0, plan()).coefficient == pytest.approx(10.0), "one over the learning rate"
    assert adapted(Adapted(20.0, 1.0), 2.0, plan()).coefficient == 20.0, "what the task itself begins with"
    assert adapted(Adapted(0.05, 1.0, 4), 0.5, plan()).coefficient == 0.0


def of_training(**training: object):
    return correcting(TASK, correction="off", **training)


def adapting(**training: object):
    return of_training(adaptive_proximal=True, **training)


PERSONAL = PersonalPlan(parameters=("3.*",))
SAMPLES = PrivacyPlan(samples=SamplePrivacy(3.0, 1e-5, 0.1, 1.0, 100, 1.0))
REFUSED = [
    (correcting(TASK, optimiser="adam"), "optimiser 'adam' scales each entry by itself"),
    (correcting(TASK, optimiser="adamw"), "optimiser 'adamw'"),
    (correcting(TASK, proximal=0.1), "leave one of correction"),
    (correcting(TASK, adaptive_proximal=True), "leave one of correction"),
    (
        msgspec.structs.replace(correcting(TASK), personal=PERSONAL),
        r"\[personal\] does not go with training.correction",
    ),
    (
        msgspec.structs.replace(correcting(TASK), personal=PersonalPlan("ditto")),
        r"\[personal\] does not go with training.correction",
    ),
    (
        msgspec.structs.replace(correcting(TASK), clusters=ClusterPlan(2, found_by="directions")),
        r"\[clusters\] does not go with training.correction",
    ),
    (msgspec.structs.replace(adapting(), personal=PersonalPlan("maml")), "leave training.proximal and"),
    *(
        (msgspec.structs.replace(task, prompts=PromptPlan()), r"\[prompts\] does not go with training")
        for task in (correcting(TASK), adapting())
    ),
    *(
        (msgspec.structs.replace(task, privacy=SAMPLES), r"\[privacy.samples\] does not go with training")
        for task in (correcting(TASK), adapting())
    ),
]


@pytest.mark.parametrize(("task", "words"), REFUSED, ids=lambda each: each if isinstance(each, str) else "")
def test_settings_that_contradict_a_correction_are_refused_at_load(task, words):
    with pytest.raises(ConfigurationError, match=words):
        parse_description(msgspec.json.encode(task))


@pytest.mark.parametrize("task", [correcting(TASK), adapting()], ids=["correction", "adaptive_proximal"])
@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"split": "any"}, r"\[split\] does not go with training"),
        ({"solved_head": "any"}, r"\[solved_head\] does not go with training"),
        ({"versions_from": "statistics"}, "needs versions that are made from updates"),
    ],
    ids=["split", "solved_head", "versions_from"],
)
def test_neither_goes_where_devices_make_no_rounds_of_their_own(task, other, words):
    with pytest.raises(ConfigurationError, match=words):
        check_client_drift(msgspec.structs.replace(task, **other), "task.json")


@pytest.mark.parametrize("optimiser", ["sgd", "momentum", "nesterov"])
def test_what_goes_with_a_correction_is_taken(optimiser):
    task = correcting(TASK, optimiser=optimiser)
    assert parse_description(msgspec.json.encode(task)) == task
    assert parse_description(msgspec.json.encode(adapting(proximal=0.2))) == adapting(proximal=0.2)


@pytest.mark.parametrize("task", [correcting(TASK), adapting()], ids=["correction", "adaptive_proximal"])
def test_gossip_has_no_versions_to_read_a_direction_off(task):
    with pytest.raises(ConfigurationError, match=r"training\.\w+ does not go with gossip"):
        check_gossip(task, "digits")


def test_a_task_without_either_is_written_as_before():
    text = msgspec.json.encode(TASK)
    assert b"correction" not in text
    assert b"adaptive" not in text
