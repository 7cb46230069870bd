"""A task with `[posterior]`: what its versions hold, and what it does not go with."""

import msgspec
import numpy as np
import pytest

from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle import parse_description
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.codec import read_distribution, read_model, with_copies, write_weights
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


def training(**changed: object):
    return msgspec.structs.replace(TASK.training, **changed)


def test_a_version_has_a_precision_of_every_weight() -> None:
    task = parsed()
    names = [each.name for each in DIGITS.parameters]
    assert [each.name for each in task.version.parameters] == [*names, *(f"{name}@precision" for name in names)]
    assert task.trained_count == task.version.size == 2 * task.parameter_count == 2 * DIGITS.parameter_count
    assert task.trained_shapes == task.version.shapes


def inputs_of(task) -> list[int]:
    """How many inputs the layers of a plain network sum, of weights and biases by turns."""
    return [each.shape[1] for each in task.parameters[::2] for _ in range(2)]


def test_version_zero_is_the_prior_around_the_initial_weights() -> None:
    task = parsed()
    model = np.linspace(-1, 1, task.parameter_count, dtype=np.float32)
    version = write_weights(with_copies(model, task), task.version.parameters)
    np.testing.assert_array_equal(read_model(version, task), model)
    mean, deviation = read_distribution(version, task, task.posterior)
    np.testing.assert_array_equal(mean, model)
    inputs = np.repeat(inputs_of(task), [each.size for each in task.parameters])
    np.testing.assert_allclose(deviation, 0.2 / np.sqrt(inputs), rtol=1e-6)


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
    ({"training": training(weight_decay=0.1)}, "training.weight_decay has no effect"),
    ({"training": training(gradient_clip=1.0)}, "training.gradient_clip has no effect"),
    ({"training": training(learning_rate=1.5)}, "at most 1"),
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


@pytest.mark.parametrize(("changed", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_what_does_not_go_with_it_is_refused_with_words(changed, words) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parsed(**changed)
    assert words in str(refused.value)
