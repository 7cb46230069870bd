"""A task with `[posterior]`: what its versions hold, and what it does not go with."""

import msgspec
import numpy as np
import pytest

from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle import parse_description
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.codec import (
    Grid,
    gaussian_places,
    prior_of,
    read_distribution,
    read_model,
    with_copies,
    write_weights,
)
from fleet_protocol.downlink_plan import DownlinkPlan
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.parameter import Parameter
from fleet_protocol.personal_plan import PersonalPlan
from fleet_protocol.posterior_plan import PosteriorPlan
from fleet_protocol.privacy.device_privacy import DevicePrivacy
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.quarantine_plan import QuarantinePlan
from fleet_protocol.robust_plan import RobustPlan
from fleet_protocol.sample_schema import LabelSchema
from fleet_protocol.scaling import Scale, Scaling
from fleet_protocol.sending_plan import SendingPlan
from tests.support.digits_rounds import TASK as DIGITS
from tests.support.posterior_task import with_posterior

TASK = with_posterior(DIGITS, PosteriorPlan(prior_deviation=0.2))


def parsed(**changed: object):
    return parse_description(msgspec.json.encode(msgspec.structs.replace(TASK, **changed)))


def aggregation(**changed: object) -> AggregationPlan:
    return msgspec.structs.replace(TASK.aggregation, **changed)


def updates(**changed: object):
    return msgspec.structs.replace(TASK.update, **changed)


def training(**changed: object):
    return msgspec.structs.replace(TASK.training, **changed)


HEAD = [each.name for each in DIGITS.parameters[-2:]]
EVERY = PosteriorPlan(parameters=("*",), prior_deviation=0.2)


@pytest.mark.parametrize(
    ("patterns", "drawn"), [((), HEAD), ((HEAD[1],), HEAD[1:]), (("*",), [each.name for each in DIGITS.parameters])]
)
def test_a_version_has_a_precision_of_every_weight_with_a_gaussian(patterns, drawn) -> None:
    task = parsed(posterior=PosteriorPlan(parameters=patterns))
    names = [each.name for each in DIGITS.parameters]
    assert [each.name for each in task.version.parameters] == [*names, *(f"{name}@precision" for name in drawn)]
    of_drawn = sum(each.size for each in DIGITS.parameters if each.name in drawn)
    assert task.trained_count == task.version.size == DIGITS.parameter_count + of_drawn
    assert task.trained_shapes == task.version.shapes
    assert gaussian_places(task, task.posterior).size == prior_of(task, task.posterior).size == of_drawn


def test_the_last_layer_is_the_last_matrix_and_what_stands_behind_it() -> None:
    plan = PosteriorPlan()
    layers = [Parameter("a", [3, 2]), Parameter("b", [3]), Parameter("c", [2, 3, 1, 1]), Parameter("d", [2])]
    assert plan.of(layers) == [False, False, True, True]
    assert plan.of(layers[1:2]) == [True]


@pytest.mark.parametrize("plan", [EVERY, PosteriorPlan(prior_deviation=0.2)], ids=["all", "last layer"])
def test_version_zero_is_the_prior_around_the_initial_weights(plan) -> None:
    task = parsed(posterior=plan)
    model = np.linspace(-1, 1, task.parameter_count, dtype=np.float32)
    version = write_weights(with_copies(model, task), task.version.parameters)
    np.testing.assert_array_equal(read_model(version, task), model)
    mean, deviation = read_distribution(version, task, task.posterior)
    np.testing.assert_array_equal(mean, model)
    inputs = [each.shape[1] for each in task.parameters[::2] for _ in range(2)]  # of weights and biases by turns
    of_layers = [
        0.2 / np.sqrt(each) if drawn else 0 for each, drawn in zip(inputs, plan.of(task.parameters), strict=True)
    ]
    np.testing.assert_allclose(deviation, np.repeat(of_layers, [each.size for each in task.parameters]), rtol=1e-6)


def test_a_task_without_the_table_is_written_as_before() -> None:
    assert "posterior" not in msgspec.json.encode(DIGITS).decode()


STATISTIC = Parameter("norm.running_mean", [4], trainable=False)
REFUSED = [
    ({"aggregation": aggregation(strategy="fedbuff")}, "keep the same estimate"),
    ({"update": msgspec.structs.replace(TASK.update, feedback="residual")}, "keep the same estimate"),
    ({"posterior": None}, "aggregation.strategy is 'posterior'; a task with [posterior]"),
    ({"clusters": ClusterPlan()}, "factor is of one model"),
    ({"personal": PersonalPlan("ditto")}, "[personal] does not go with [posterior]"),
    (
        {"privacy": PrivacyPlan(devices=DevicePrivacy(epsilon=8.0, clip=1.0, versions=100, at_most=10))},
        "[privacy.devices] does not go with [posterior]",
    ),
    ({"aggregation": aggregation(robust=RobustPlan("median"))}, "factors add"),
    ({"aggregation": aggregation(quarantine=QuarantinePlan())}, "'posterior' device and coordinator keep the same"),
    ({"sending": SendingPlan("relevant", 0.5)}, "sending.rule is 'relevant'"),
    ({"label": LabelSchema(10, shape=[2])}, "'class' with positions"),
    ({"label": LabelSchema(10, "multi_label")}, "'multi_label'"),
    ({"parameters": [*TASK.parameters, STATISTIC]}, 'batch_norm = "frozen"'),
    ({"training": training(optimiser="momentum")}, 'training.optimiser = "sgd"'),
    ({"training": training(weight_decay=0.1)}, "training.weight_decay would be taken for a part of the gradient"),
    ({"training": training(gradient_clip=1.0)}, "training.gradient_clip would be taken for a part of the gradient"),
    ({"downlink": DownlinkPlan("lossy", -1)}, "downlink.precision_bits -1 the grid is coarser than the precisions"),
    ({"posterior": PosteriorPlan(parameters=("mouth",))}, "no parameter is called like 'mouth'"),
    ({"posterior": PosteriorPlan(parameters=("*", "*"))}, "a pattern stands there twice"),
    ({"update": updates(selection="top_k")}, 'write update.selection = "top_k_per_tensor"'),
    ({"update": updates(selection="threshold", threshold=0.1)}, 'write update.selection = "top_k_per_tensor"'),
    ({"update": updates(quantisation="sign")}, 'write update.quantisation = "ternary"'),
    ({"aggregation": aggregation(server_learning_rate=0.5)}, "product of its factors"),
    ({"aggregation": aggregation(server_momentum=0.5)}, "product of its factors"),
    ({"aggregation": aggregation(server_optimiser="adam")}, "product of its factors"),
    (
        {
            "label": LabelSchema(kind="regression", values=1),
            "scaling": Scaling(targets=Scale([0.0], [2.0])),
        },
        '[scaling] targets = "off"',
    ),
]


def test_of_all_weights_the_largest_changes_may_be_sent() -> None:
    assert parsed(posterior=EVERY, update=updates(selection="top_k")).update.selection == "top_k"


@pytest.mark.parametrize("downlink", [DownlinkPlan("lossy", 0), DownlinkPlan("exact")])
def test_published_precisions_stay_near_the_priors_on_the_coarsest_grid_that_is_taken(downlink) -> None:
    task = parsed(downlink=downlink)
    first = with_copies(np.full(task.parameter_count, 0.05, np.float32), task)
    rounded = Grid.below(first, task.version.shapes, 0).rounded(first, task.version.shapes)
    np.testing.assert_allclose(rounded[task.parameter_count :], first[task.parameter_count :], rtol=0.5)
    coarser = Grid.below(first, task.version.shapes, -2).rounded(first, task.version.shapes)
    assert not coarser[task.parameter_count :].all()


@pytest.mark.parametrize(("changed", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_what_does_not_go_with_it_is_refused_with_words(changed, words) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parsed(**changed)
    assert words in str(refused.value)


@pytest.mark.parametrize("setting", [{"correction": "scaffold"}, {"adaptive_proximal": True}])
def test_what_is_done_against_drift_is_refused(setting) -> None:
    (name,) = setting
    with pytest.raises(ConfigurationError, match=rf"\[posterior\] does not go with training\.{name}.*leave one"):
        parsed(training=training(**setting))
