"""What becomes of copies in versions: each is its own devices', and nobody's is copy 0."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_coordinator.admission.consumer import Offered
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.server_step import initial_state
from broker_coordinator.aggregation.strategies import STRATEGIES
from broker_coordinator.consumers.update import UPDATE_CONSUMER, UpdateFacts, item
from edge_agent.training.compression import pack, remember
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.cluster_plan import NOT_COPIED
from fleet_protocol.codec import ClusterView, with_copies
from fleet_protocol.envelope import Header
from fleet_protocol.kinds import UPDATE, Update
from tests.support.clustered_task import WHOLE, clustered
from tests.support.split_task import TASK

MODEL = np.linspace(-1, 1, 15, dtype=np.float32)
STRATEGIES_WITH_COPIES = sorted(STRATEGIES.keys() - NOT_COPIED.keys())
FEDBUFF = AggregationPlan(strategy="fedbuff", buffer_size=2)
OF_DEVICE, OF_HELPER = (30, 0, 0, 30), (0, 90, 60, 0)


def averaged_by(plan: AggregationPlan, *patterns: str, base=WHOLE):
    return msgspec.structs.replace(clustered(3, *patterns, base=base), aggregation=plan)


def buffered(task, cluster: int, value: float, *, device="attic", version=0, held=(), helper=False):
    """An update that changed every value of its cluster's model by `value`, as admission makes it of the wire's."""
    delta = np.full(15, value, np.float32)
    packed = pack(delta, remember(task, b"", (), life=1), task, seed=0, held=held).data
    update = Update(10, 6, 1.0, packed, held=held, cluster=cluster)
    header = Header(UPDATE, 1, task.task, version, bytes(16))
    return item(Offered(device, header, update, task, 0), UpdateFacts(10, 1.0, 1.0, helper=helper))


def first_state(task) -> ServerState:
    return initial_state(with_copies(MODEL, task), task.aggregation)


def next_state(task, state: ServerState, *updates) -> ServerState:
    return UPDATE_CONSUMER.next_state(state, updates, task)


def model(task, state: ServerState, cluster: int) -> np.ndarray:
    return ClusterView.of(task, cluster).weights(state.weights)


def trained(task, state: ServerState, cluster: int) -> np.ndarray:
    return model(task, state, cluster)[:12]


def test_each_cluster_is_the_mean_of_its_own_devices():
    task = averaged_by(FEDBUFF)
    made = next_state(task, first_state(task), *(buffered(task, *each) for each in ((1, 1.0), (1, 3.0), (2, 5.0))))
    np.testing.assert_allclose(trained(task, made, 1), MODEL[:12] + 2.0 * task.aggregation.server_learning_rate)
    np.testing.assert_allclose(trained(task, made, 2), MODEL[:12] + 5.0 * task.aggregation.server_learning_rate)
    assert model(task, made, 0).tobytes() == MODEL.tobytes()


def test_what_all_share_is_the_mean_of_all():
    task = averaged_by(FEDBUFF, "first.*")
    made = next_state(task, first_state(task), buffered(task, 1, 1.0), buffered(task, 2, 3.0))
    rate = task.aggregation.server_learning_rate
    np.testing.assert_allclose(trained(task, made, 1)[:4], MODEL[:4] + 1.0 * rate)
    np.testing.assert_allclose(trained(task, made, 2)[:4], MODEL[:4] + 3.0 * rate)
    for cluster in range(4):
        np.testing.assert_allclose(trained(task, made, cluster)[4:], MODEL[4:12] + 2.0 * rate)


def test_a_cluster_begins_with_what_devices_without_one_have_learned_and_goes_its_own_way():
    task = averaged_by(FEDBUFF)
    state = next_state(task, first_state(task), buffered(task, 0, 1.0))
    assert model(task, state, 1).tobytes() == model(task, state, 0).tobytes() != MODEL.tobytes()
    began = next_state(task, state, buffered(task, 1, 1.0))
    assert model(task, began, 2).tobytes() == model(task, began, 0).tobytes() == model(task, state, 0).tobytes()
    later = next_state(task, began, buffered(task, 0, 1.0))
    assert model(task, later, 1).tobytes() == model(task, began, 1).tobytes()
    assert model(task, later, 2).tobytes() == model(task, later, 0).tobytes() != model(task, began, 0).tobytes()


def test_a_block_of_a_cluster_that_only_the_helper_trains_is_the_helpers():
    task = averaged_by(FEDBUFF, base=TASK)
    updates = [buffered(task, 1, 1.0, held=OF_DEVICE), buffered(task, 0, 4.0, held=OF_HELPER, helper=True)]
    made = next_state(task, first_state(task), *updates)
    rate = task.aggregation.server_learning_rate
    np.testing.assert_allclose(
        trained(task, made, 1) - MODEL[:12], np.repeat([1.0, 4.0, 4.0, 1.0], [4, 3, 2, 3]) * rate, rtol=1e-5
    )
    np.testing.assert_allclose(
        trained(task, made, 0) - MODEL[:12], np.repeat([0.0, 4.0, 4.0, 0.0], [4, 3, 2, 3]) * rate, rtol=1e-5
    )


@pytest.mark.parametrize("strategy", STRATEGIES_WITH_COPIES)
@pytest.mark.parametrize("optimiser", ["sgd", "momentum", "adam"])
def test_no_cluster_moves_another(strategy, optimiser):
    """Under each strategy and optimiser: the model of cluster 1 is that of a fleet which has nobody else."""
    plan = AggregationPlan(strategy=strategy, buffer_size=2, server_optimiser=optimiser)
    task = averaged_by(plan)
    alone = together = first_state(task)
    for version in range(4):
        ours = [buffered(task, 1, value, device=name, version=version) for name, value in (("attic", 1), ("barn", 2))]
        others = [buffered(task, cluster, -5.0, device=f"other-{cluster}", version=version) for cluster in (0, 2)]
        alone = next_state(task, alone, *ours)
        together = next_state(task, together, *ours, *others)
    np.testing.assert_allclose(model(task, together, 1), model(task, alone, 1), rtol=1e-5)
    assert not np.allclose(model(task, together, 2), model(task, together, 1))


@pytest.mark.parametrize("strategy", STRATEGIES_WITH_COPIES)
@settings(max_examples=15)
@given(data=st.data())
def test_partials_of_single_updates_make_the_same_version_bit_for_bit(strategy, data):
    task = averaged_by(AggregationPlan(strategy=strategy, buffer_size=2), "first.*", "last.*")
    drawn = st.tuples(st.integers(0, 3), st.floats(-2, 2, width=32), st.sampled_from(["attic", "barn", "cellar"]))
    state = first_state(task)
    for version in range(3):
        values = data.draw(st.lists(drawn, min_size=1, max_size=5, unique_by=lambda each: each[2]))
        updates = [buffered(task, cluster, value, device=name, version=version) for cluster, value, name in values]
        total = UPDATE_CONSUMER.partial(state, [], task)
        for update in updates:
            total += UPDATE_CONSUMER.partial(state, [update], task)
        one_by_one = UPDATE_CONSUMER.finish(state, total, task)
        state = next_state(task, state, *updates)
        assert state.weights.tobytes() == one_by_one.weights.tobytes()
        assert state.moments.tobytes() == one_by_one.moments.tobytes()
        untouched = set(range(1, 4)) - {cluster for cluster, _, _ in values}
        assert all(np.isfinite(model(task, state, cluster)).all() for cluster in untouched)


def test_a_version_from_before_a_cluster_was_trained_lets_it_follow_again():
    """A rollback restores weights and nothing else, and says with them which copies nobody has trained."""
    task = averaged_by(FEDBUFF)
    old = next_state(task, first_state(task), buffered(task, 0, 1.0))
    state = next_state(task, old, buffered(task, 1, 1.0))
    back = replace(state, version=state.version + 1, weights=old.weights, moments=old.moments)
    made = next_state(task, back, buffered(task, 0, 1.0))
    assert model(task, made, 1).tobytes() == model(task, made, 0).tobytes()
