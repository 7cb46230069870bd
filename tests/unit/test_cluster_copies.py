"""A version with copies for clusters: what is where, and what a device has and changes of it."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol.aggregation_plan import KEEPS_ESTIMATES
from fleet_protocol.bundle import parse_description
from fleet_protocol.cluster_plan import NOT_COPIED, ClusterPlan
from fleet_protocol.codec import ClusterView, SparseUpdate, read_model, read_weights, with_copies, write_weights
from fleet_protocol.errors import ConfigurationError
from tests.support.clustered_task import WHOLE, clustered
from tests.support.split_task import TASK
from workbench.recipe_folder import find_recipe

MODEL = np.arange(1, 16, dtype=np.float32)
"""Of each parameter its place, counted from 1; the last three are statistics."""
TRAINED = 12
PATTERNS = st.sampled_from([(), ("first.*",), ("*.weight",), ("third.*", "last.*"), ("*.mean",), ("*",)])
TASKS = st.builds(
    lambda most, patterns, base: clustered(most, *patterns, base=base),
    st.integers(2, 8),
    PATTERNS,
    st.sampled_from([TASK, WHOLE]),
)


def names(task) -> list[str]:
    return [each.name for each in task.version.parameters]


def test_copies_stand_behind_the_model_and_statistics_behind_what_trains():
    assert names(clustered(2, "first.*", base=WHOLE)) == [
        "first.weight",
        "second.weight",
        "third.weight",
        "last.weight",
        "first.weight@1",
        "first.weight@2",
        "first.mean",
        "second.mean",
        "first.mean@1",
        "first.mean@2",
    ]


def test_blocks_that_every_cut_leaves_to_a_helper_have_no_copies():
    assert sorted(clustered(2).version.copied) == ["first.mean", "first.weight", "last.weight", "third.weight"]
    assert clustered(2, base=WHOLE).version.copied == {each.name for each in WHOLE.parameters}


def test_without_clusters_a_version_is_the_model():
    assert list(TASK.version.parameters) == TASK.parameters
    assert TASK.version.size == TASK.parameter_count
    assert ClusterView.of(TASK).weights(MODEL) is MODEL
    update = SparseUpdate(np.array([3]), np.ones(1, np.float32))
    assert ClusterView.of(TASK).changes(update) is update
    np.testing.assert_array_equal(with_copies(MODEL, TASK), MODEL)


@given(TASKS, st.data())
def test_every_cluster_has_the_model_of_a_version_that_no_device_has_changed(task, data):
    cluster = data.draw(st.integers(0, task.clusters.most))
    version = with_copies(MODEL, task)
    assert version.size == task.version.size
    np.testing.assert_array_equal(ClusterView.of(task, cluster).weights(version), MODEL)
    file = write_weights(version, task.version.parameters)
    np.testing.assert_array_equal(read_model(file, task, cluster), MODEL)
    np.testing.assert_array_equal(read_weights(file, task.version.parameters), version)


@given(TASKS, st.data())
def test_what_a_device_changes_is_what_it_finds_changed_and_nobody_else_but_where_all_share(task, data):
    cluster, other = data.draw(st.permutations(range(task.clusters.most + 1)))[:2]
    chosen = np.array(sorted(data.draw(st.sets(st.integers(0, TRAINED - 1)))), np.int64)
    change = SparseUpdate(chosen, MODEL[chosen])
    view = ClusterView.of(task, cluster)
    placed = view.changes(change)
    assert (np.diff(placed.indices) > 0).all()
    version = np.zeros(task.version.size, np.float32)
    placed.add_to(version)
    whole = task.version.size - task.version.statistics
    version[whole:] = view.statistics.spread(MODEL[TRAINED:])
    expected = np.zeros(MODEL.size, np.float32)
    expected[chosen] = MODEL[chosen]
    expected[TRAINED:] = MODEL[TRAINED:]
    np.testing.assert_array_equal(view.weights(version), expected)
    sizes = [each.size for each in task.parameters]
    is_shared = np.repeat([each.name not in task.version.copied for each in task.parameters], sizes)
    np.testing.assert_array_equal(ClusterView.of(task, other).weights(version), np.where(is_shared, expected, 0))


@given(TASKS, st.data())
def test_an_update_holds_its_own_copies_and_what_all_share(task, data):
    cluster = data.draw(st.integers(0, task.clusters.most))
    held = data.draw(st.lists(st.integers(0, 9), min_size=task.blocks, max_size=task.blocks))
    samples = task.version.samples(held, cluster)
    found = {tensor.name: samples[tensor.block] for tensor in task.version.parameters}
    for parameter in task.parameters:
        assert found[task.version.name(parameter.name, cluster)] == held[parameter.block]
        others = {task.version.name(parameter.name, other) for other in range(task.clusters.most + 1)}
        assert not any(found[name] for name in others - {task.version.name(parameter.name, cluster)})


def digits_with(**changed) -> bytes:
    task = parse_description((find_recipe("digits") / "bundle" / "task.json").read_bytes())
    return msgspec.json.encode(msgspec.structs.replace(task, **changed))


def refused(**changed) -> str:
    with pytest.raises(ConfigurationError) as refusal:
        parse_description(digits_with(**changed))
    return str(refusal.value)


def test_a_task_with_copies_can_be_read():
    assert parse_description(digits_with(clusters=ClusterPlan(8))).version.has_copies


@pytest.mark.parametrize("strategy", sorted(NOT_COPIED))
def test_strategies_that_know_one_model_alone_are_refused(strategy):
    task = parse_description(digits_with())
    plan = msgspec.structs.replace(task.aggregation, strategy=strategy, buffer_size=1, server_learning_rate=1.0)
    update = msgspec.structs.replace(task.update, feedback="ef21" if strategy in KEEPS_ESTIMATES else "residual")
    assert NOT_COPIED[strategy] in refused(clusters=ClusterPlan(), aggregation=plan, update=update)


def test_patterns_that_name_nothing_or_twice_the_same_are_refused():
    said = refused(clusters=ClusterPlan(2, ("*", "nowhere.*")))
    assert "no parameter is called like 'nowhere.*'; a version begins with 1.weight, 1.bias, 3.weight" in said
    assert "a pattern stands there twice" in refused(clusters=ClusterPlan(2, ("*", "*")))


def test_a_parameter_that_is_called_like_a_copy_is_refused():
    task = parse_description(digits_with())
    first, second, *others = task.parameters
    parameters = [first, msgspec.structs.replace(second, name=f"{first.name}@1"), *others]
    assert "called like the copy of another" in refused(clusters=ClusterPlan(2, (first.name,)), parameters=parameters)


def test_more_copies_than_a_version_may_hold_are_refused():
    task = parse_description(digits_with())
    first = msgspec.structs.replace(task.parameters[0], shape=[4 * 1024 * 1024])
    said = refused(clusters=ClusterPlan(8), parameters=[first, *task.parameters[1:]])
    assert "copy fewer parameters, or lower clusters.most" in said


@pytest.mark.parametrize("most", [1, 9])
def test_a_number_of_clusters_outside_the_limits_is_refused(most):
    assert "clusters.most" in refused(clusters=ClusterPlan(most))
