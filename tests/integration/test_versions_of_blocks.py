"""A fleet of unlike cuts and a helper, before a real journal: each block moves by who held it, and a replay agrees."""

import numpy as np
import pytest

from broker_coordinator.serving.due import ALONE_SECONDS
from broker_coordinator.serving.replay import replayed
from broker_coordinator.storage.helper_registry import HelperRegistry
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.codec import encode_update
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import Outcome
from fleet_protocol.parameter import Parameter
from fleet_protocol.update_plan import UpdatePlan
from tests.support.bench import OPEN, Bench
from tests.support.bundles import TASK, THREE_BLOCKS, write_bundle
from tests.support.device import SigningDevice

PARAMETERS = [Parameter("first", [2]), Parameter("second", [3], block=1), Parameter("last", [2], block=2)]
DENSE = UpdatePlan(1.0, "float32", "dense")
DEVICE, HELPER = (8, 0, 8), (0, 16, 0)
WEAK, STRONG, GATEWAY = (SigningDevice(name) for name in ("weak-pi", "strong-pi", "gateway"))
CHANGES = {WEAK.name: 1.0, STRONG.name: 3.0, GATEWAY.name: 6.0}


def packed(device: SigningDevice, held: tuple[int, ...]) -> bytes:
    """The device's own change, of every value that it holds."""
    shapes = [tuple(each.shape) for each in PARAMETERS if not held or held[each.block]]
    delta = np.full(sum(map(np.prod, shapes)), CHANGES[device.name], np.float32)
    return encode_update(delta, shapes, DENSE, np.random.default_rng(0)).packed


@pytest.fixture(params=["fedbuff", "base_mean", "ca2fl", "aced"])
def bench(tmp_path, request) -> Bench:
    plan = AggregationPlan(strategy=request.param, buffer_size=2, averaged_versions=1)
    bundle = write_bundle(
        tmp_path / "bundle", parameters=PARAMETERS, aggregation=plan, update=DENSE, split=THREE_BLOCKS
    )
    bench = Bench(tmp_path / "coordinator.db", bundle, OPEN)
    for device in (WEAK, STRONG, GATEWAY):
        bench.handle(device, device.enrolment())
    return bench


def send(bench: Bench, device: SigningDevice, sequence: int, held: tuple[int, ...], samples: int = 8) -> None:
    base = bench.journal.newest_number(TASK)
    data = packed(device, held)
    bench.handle(device, device.update(sequence, base_version=base, samples=samples, packed=data, held=held))


def weights(bench: Bench, number: int) -> np.ndarray:
    """Those that the next version is made from."""
    return bench.journal.version(TASK, number).state(PARAMETERS, {}).weights


def test_every_block_moves_by_the_mean_over_its_holders_and_replays_to_the_last_bit(bench):
    """After a restart too."""
    HelperRegistry(bench.journal.engine).allow(GATEWAY.name)
    for sequence in (1, 2, 3):
        if sequence == 2:
            bench.restart()
        send(bench, WEAK, sequence, DEVICE)
        send(bench, GATEWAY, sequence, HELPER, samples=16)
        send(bench, STRONG, sequence, ())
        bench.make_versions()
    assert bench.journal.newest_number(TASK) == 3
    counted = 12  # of the helper's samples: half as many again as all devices have declared when it comes
    ends, middle = (8 * 1 + 8 * 3) / 16, (8 * 3 + counted * 6) / (8 + counted)
    moved = weights(bench, 1) - weights(bench, 0)
    np.testing.assert_allclose(moved, [ends, ends, middle, middle, middle, ends, ends], rtol=1e-6)
    for number, state in replayed(bench.journal, bench.description):
        assert weights(bench, number).tobytes() == state.weights.tobytes()


def test_a_helper_takes_no_place_and_waits_a_moment_for_devices_to_go_along_with(bench):
    HelperRegistry(bench.journal.engine).allow(GATEWAY.name)
    send(bench, GATEWAY, 1, HELPER, samples=16)
    send(bench, WEAK, 1, DEVICE)
    bench.make_versions()
    assert bench.journal.newest_number(TASK) == 0, "of two places, one is taken"
    bench.now += ALONE_SECONDS
    bench.make_versions()
    assert bench.journal.newest_number(TASK) == 0, "it has a device's update for company"
    send(bench, STRONG, 1, ())
    send(bench, GATEWAY, 2, HELPER, samples=16)
    bench.make_versions()
    assert bench.journal.newest_number(TASK) == 1
    bench.now += 0.9 * ALONE_SECONDS
    bench.make_versions()
    assert bench.journal.newest_number(TASK) == 1
    bench.now += 0.2 * ALONE_SECONDS
    bench.make_versions()
    remembers = bench.description.aggregation.strategy in ("ca2fl", "aced")
    assert bench.journal.newest_number(TASK) == 2 - remembers, "what came too late for its devices makes the next one"
    moved = weights(bench, bench.journal.newest_number(TASK)) != weights(bench, 1)
    assert moved.tolist() == [False, False, *[not remembers] * 3, False, False]


def test_a_helper_is_believed_while_it_is_allowed_and_not_after(bench):
    registry = HelperRegistry(bench.journal.engine)
    outcomes = []
    for sequence, change in enumerate((None, registry.allow, registry.deny), 1):
        if change:
            change(GATEWAY.name)
        bench.said()
        send(bench, GATEWAY, sequence, HELPER, samples=16)
        outcomes += [(receipt.outcome, receipt.reason) for receipt in bench.receipts()]
    refused = (Outcome.REJECTED, Reason.OUT_OF_BOUNDS.value)
    assert outcomes == [refused, (Outcome.ACCEPTED, ""), refused]
