"""A fleet of two clusters before a real journal: each has its own copy, whoever assigns them, and a replay agrees."""

import numpy as np
import pytest

from broker_coordinator.serving.due import ALONE_SECONDS
from broker_coordinator.serving.replay import replayed
from broker_coordinator.storage.cluster_registry import ClusterRegistry
from broker_coordinator.storage.copying import copy_database
from broker_coordinator.storage.helper_registry import HelperRegistry
from broker_coordinator.storage.task_registry import TaskRegistry
from broker_coordinator.storage.version_registry import VersionRegistry
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.codec import ClusterView, encode_update, read_model
from fleet_protocol.errors import ConfigurationError, Reason
from fleet_protocol.kinds import Outcome
from fleet_protocol.parameter import Parameter
from fleet_protocol.update_plan import UpdatePlan
from tests.support.bench import OPEN, Bench
from tests.support.bundles import TASK, THREE_BLOCKS, write_bundle
from tests.support.device import SigningDevice

PARAMETERS = [Parameter("shared", [3]), Parameter("own", [2])]
DENSE = UpdatePlan(1.0, "float32", "dense")
DEVICES = [SigningDevice(name) for name in ("attic", "barn", "cellar", "den")]
ATTIC, BARN, CELLAR, DEN = DEVICES
REFUSED = (Outcome.REJECTED, Reason.WRONG_CLUSTER.value)
ACCEPTED = (Outcome.ACCEPTED, "")


def served(tmp_path, strategy: str = "fedbuff", clusters: ClusterPlan | None = None, **others) -> Bench:
    plan = AggregationPlan(strategy=strategy, buffer_size=4, averaged_versions=1, server_learning_rate=1.0)
    bundle = write_bundle(
        tmp_path / "bundle",
        parameters=PARAMETERS,
        aggregation=plan,
        update=DENSE,
        clusters=clusters or ClusterPlan(2, ("own",)),
        **others,
    )
    bench = Bench(tmp_path / "coordinator.db", bundle, OPEN)
    for device in DEVICES:
        bench.handle(device, device.enrolment())
    bench.said()
    return bench


@pytest.fixture(params=["fedbuff", "base_mean", "ca2fl", "aced", "fadas"])
def bench(tmp_path, request) -> Bench:
    return served(tmp_path, request.param)


def assign(bench: Bench, **clusters: int) -> None:
    ClusterRegistry(bench.journal.engine).assign(bench.description, clusters)


def send(bench: Bench, device: SigningDevice, sequence: int, cluster: int, value: float) -> tuple[Outcome, str, int]:
    """An update that changes every value of the cluster's model by `value`; what its receipt says."""
    delta = np.full(5, value, np.float32)
    packed = encode_update(delta, bench.description.trained_shapes, DENSE, np.random.default_rng(0)).packed
    base = bench.journal.newest_number(TASK)
    bench.handle(device, device.update(sequence, base_version=base, packed=packed, cluster=cluster))
    (receipt,) = bench.receipts()
    return receipt.outcome, receipt.reason, receipt.cluster


def unrounded(bench: Bench, number: int) -> np.ndarray:
    return bench.journal.version(TASK, number).state(bench.description.version.parameters, {}).weights


def model(bench: Bench, cluster: int, number: int | None = None) -> np.ndarray:
    newest = bench.journal.newest_number(TASK) if number is None else number
    return ClusterView.of(bench.description, cluster).weights(unrounded(bench, newest))


def rounds(bench: Bench) -> None:
    """Three versions of all four devices, two in each cluster, with a kill in between."""
    assign(bench, attic=1, barn=1, cellar=2, den=2)
    for sequence in (1, 2, 3):
        if sequence == 2:
            bench.restart()
        for device, cluster, value in ((ATTIC, 1, 1.0), (BARN, 1, 2.0), (CELLAR, 2, -1.0), (DEN, 2, -1.8)):
            assert send(bench, device, sequence, cluster, value) == (*ACCEPTED, cluster)
        bench.make_versions()
    assert bench.journal.newest_number(TASK) == 3


def test_replays_agree_to_the_last_bit_after_a_kill(bench):
    rounds(bench)
    for number, state in replayed(bench.journal, bench.description):
        assert unrounded(bench, number).tobytes() == state.weights.tobytes()
    assert not np.array_equal(model(bench, 1)[3:], model(bench, 2)[3:])
    np.testing.assert_array_equal(model(bench, 0)[3:], model(bench, 0, 0)[3:])
    np.testing.assert_array_equal(model(bench, 1)[:3], model(bench, 2)[:3])


def test_each_copy_moves_by_the_mean_of_its_own_devices_and_what_they_share_by_that_of_all(tmp_path):
    bench = served(tmp_path)
    rounds(bench)
    for cluster, own in ((0, 0.0), (1, 1.5), (2, -1.4)):
        moved = model(bench, cluster, 1) - model(bench, cluster, 0)
        np.testing.assert_allclose(moved, [0.05, 0.05, 0.05, own, own], atol=1e-5)


def test_a_cluster_that_is_away_stays_as_it_was_and_one_of_a_single_device_is_what_that_makes_of_it(tmp_path):
    bench = served(tmp_path)
    assign(bench, attic=1, barn=1, cellar=1, den=2)
    for sequence in (1, 2, 3):
        for device in (ATTIC, BARN, CELLAR):
            send(bench, device, sequence, 1, 1.0)
        if sequence > 1:
            send(bench, DEN, sequence - 1, 2, -1.0)
        else:
            send(bench, ATTIC, 9, 1, 1.0)
        bench.make_versions()
    away, alone, again = (model(bench, 2, number)[3:] for number in (1, 2, 3))
    np.testing.assert_array_equal(away, model(bench, 2, 0)[3:])
    np.testing.assert_allclose(alone - away, [-1.0, -1.0], atol=1e-5)
    np.testing.assert_allclose(again - alone, [-1.0, -1.0], atol=1e-5)


def test_a_device_is_told_its_cluster_whenever_it_sends_and_however_often_a_receipt_is_lost(tmp_path):
    bench = served(tmp_path)
    assert send(bench, ATTIC, 1, 0, 1.0) == (*ACCEPTED, 0)
    assign(bench, attic=2)
    delta = encode_update(np.ones(5, np.float32), bench.description.trained_shapes, DENSE, np.random.default_rng(0))
    message = ATTIC.update(2, packed=delta.packed)
    for _ in range(2):  # the second time after a restart, which remembers no receipt
        bench.handle(ATTIC, message)
        assert [receipt.cluster for receipt in bench.receipts()] == [2]
        bench.restart()
    assign(bench, attic=0)
    assert send(bench, ATTIC, 3, 0, 1.0) == (*ACCEPTED, 0)


def test_a_cluster_that_the_device_is_not_in_is_refused_and_the_receipt_says_which_it_is_in(tmp_path):
    bench = served(tmp_path)
    assert send(bench, ATTIC, 1, 1, 1.0) == (*REFUSED, 0)
    assign(bench, attic=1, barn=2)
    assert send(bench, ATTIC, 2, 2, 1.0) == (*REFUSED, 1)
    assert send(bench, ATTIC, 3, 1, 1.0) == (*ACCEPTED, 1)
    assert send(bench, BARN, 1, 0, 1.0) == (*ACCEPTED, 2), "it can't know it yet"
    assign(bench, attic=2)
    assert send(bench, ATTIC, 4, 1, 1.0) == (*REFUSED, 2), "its copy is another's now"


def test_an_update_of_a_cluster_is_refused_where_the_task_has_none(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", parameters=PARAMETERS, update=DENSE)
    bench = Bench(tmp_path / "coordinator.db", bundle, OPEN)
    bench.handle(ATTIC, ATTIC.enrolment())
    bench.said()
    assert send(bench, ATTIC, 1, 1, 1.0) == (Outcome.REJECTED, Reason.MALFORMED.value, None)
    assert send(bench, ATTIC, 2, 0, 1.0) == (*ACCEPTED, None)
    with pytest.raises(ConfigurationError, match="has one model for all devices"):
        assign(bench, attic=1)


def test_only_clusters_that_the_task_has_can_be_assigned(tmp_path):
    bench = served(tmp_path)
    for wrong in (-1, 3):
        with pytest.raises(ConfigurationError, match=f"no cluster {wrong}: it has 1 to 2"):
            assign(bench, attic=1, barn=wrong)
    assert ClusterRegistry(bench.journal.engine).assigned() == {}, "all or none"


@pytest.mark.long
def test_more_devices_than_a_statement_of_sqlite_may_name_are_assigned_at_once(tmp_path):
    bench = served(tmp_path)
    many = {f"device-{number}": 1 for number in range(40_000)}
    assign(bench, **many)
    assign(bench, **many | {"device-7": 2, "device-8": 0})
    del many["device-8"]
    assert ClusterRegistry(bench.journal.engine).assigned() == {TASK: many | {"device-7": 2}}


def test_fewer_clusters_in_a_newer_bundle_leave_devices_of_the_others_in_none(tmp_path):
    bench = served(tmp_path, clusters=ClusterPlan(4, ("own",)))
    assign(bench, attic=4)
    fewer = write_bundle(tmp_path / "fewer", parameters=PARAMETERS, update=DENSE, clusters=ClusterPlan(2, ("own",)))
    TaskRegistry(bench.journal.engine).publish(fewer)
    bench.coordinator.reload_if_changed()
    bench.said()
    first = bench.journal.newest_number(TASK)
    bench.handle(ATTIC, ATTIC.update(1, base_version=first, generation=1, shapes=[(3,), (2,)]))
    assert [(receipt.outcome, receipt.cluster) for receipt in bench.receipts()] == [(Outcome.ACCEPTED, 0)]


def test_a_helper_trains_the_copy_of_any_cluster_whatever_cluster_it_is_in(tmp_path):
    parameters = [Parameter("first", [2]), Parameter("second", [3], block=1), Parameter("last", [2], block=2)]
    bundle = write_bundle(
        tmp_path / "bundle",
        parameters=parameters,
        update=DENSE,
        split=THREE_BLOCKS,
        clusters=ClusterPlan(2, ("*",)),
    )
    bench = Bench(tmp_path / "coordinator.db", bundle, OPEN)
    bench.handle(DEN, DEN.enrolment())
    HelperRegistry(bench.journal.engine).allow(DEN.name)
    assign(bench, den=1)
    bench.said()
    for cluster in range(4):
        change = np.full(3, 1 + cluster, np.float32)
        packed = encode_update(change, [(3,)], DENSE, np.random.default_rng(0)).packed
        bench.handle(DEN, DEN.update(1 + cluster, packed=packed, held=(0, 8, 0), cluster=cluster))
    assert [receipt.reason for receipt in bench.receipts()] == ["", "", "", Reason.WRONG_CLUSTER.value]
    before = bench.journal.newest_number(TASK)
    bench.make_versions()
    bench.now += ALONE_SECONDS
    bench.make_versions()
    for cluster in range(3):
        moved = model(bench, cluster) - model(bench, cluster, before)
        np.testing.assert_allclose(moved, [0, 0, *3 * [1 + cluster], 0, 0], rtol=1e-6)


def test_a_rollback_restores_every_copy_and_replays(tmp_path):
    bench = served(tmp_path)
    rounds(bench)
    VersionRegistry(bench.journal.engine).roll_back(TASK, 1)
    bench.coordinator.make_versions(bench.now)
    for cluster in range(3):
        assert model(bench, cluster, 4).tobytes() == model(bench, cluster, 1).tobytes()
    for device, cluster in ((ATTIC, 1), (BARN, 1), (CELLAR, 0), (DEN, 0)):
        send(bench, device, 4, cluster, 1.0)
    bench.make_versions()
    assert bench.journal.newest_number(TASK) == 5
    for number, state in replayed(bench.journal, bench.description):
        assert unrounded(bench, number).tobytes() == state.weights.tobytes()


def test_a_copied_database_and_a_removed_task_take_the_assignments_with_them(tmp_path):
    bench = served(tmp_path)
    assign(bench, attic=1)
    bench.journal.close()
    copy_database(tmp_path / "coordinator.db", tmp_path / "copy.db")
    bench.database = tmp_path / "copy.db"
    bench.restart()
    registry = ClusterRegistry(bench.journal.engine)
    assert registry.assigned() == {TASK: {"attic": 1}}
    TaskRegistry(bench.journal.engine).remove(TASK)
    assert registry.assigned() == {}


def test_what_devices_fetch_is_every_copy_and_each_finds_its_own(tmp_path):
    """Published versions are rounded, and copies alike."""
    bench = served(tmp_path)
    rounds(bench)
    file = bench.journal.version(TASK, 3).weights
    for cluster in range(3):
        np.testing.assert_allclose(
            read_model(file, bench.description, cluster), model(bench, cluster, 3), atol=1e-2, rtol=1e-2
        )
