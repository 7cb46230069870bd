"""Devices ask for files: what one of them may ask for is bounded, and updates never wait for it."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from broker_coordinator.distribution.packed_versions import PackedVersions
from broker_coordinator.distribution.signed_messages import Publication
from broker_coordinator.serving.file_server import COUNT_INTERVAL_SECONDS, FileServer
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.serving.preparation import MAX_WAITING_OF_DEVICE
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_host.rate_limit import TokenBucket
from fleet_protocol.bundle_files import TRAIN_FILE, WEIGHTS_FILE
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import Outcome
from fleet_protocol.limits import MAX_CHUNK_BYTES
from fleet_protocol.topics import PackedWeights
from tests.support.bench import OPEN, Bench
from tests.support.bundles import TASK, write_bundle
from tests.support.device import SigningDevice
from tests.support.held_executor import HeldExecutor
from tests.support.waiting import until

REQUESTS = 2000


@pytest.fixture
def bench(tmp_path, bundle) -> Iterator[Bench]:
    """A coordinator whose file server makes files when a test says so, in `bench.executor`."""
    bench = Bench(tmp_path / "coordinator.db", bundle)
    bench.executor = HeldExecutor()
    bench.coordinator._file_server = FileServer(
        bench.journal,
        TaskRegistry(bench.journal.engine),
        bench.coordinator._file_server._signer,
        metrics=Metrics(),
        allowance=TokenBucket(0.5, 4096),
        executor=bench.executor,
    )
    yield bench
    bench.journal.close()


def test_update_never_waits_for_requests_of_files(bench) -> None:
    greedy, honest = SigningDevice("greedy-pi"), SigningDevice("honest-pi")
    for device in (greedy, honest):
        bench.handle(device, device.enrolment())
    bench.said()
    bench.handle(greedy, *(greedy.weights_request(0, 1000 + number, number) for number in range(REQUESTS)))
    bench.handle(honest, honest.update(1), honest.weights_request(0, None, 1))
    assert [receipt.outcome for receipt in bench.receipts()] == [Outcome.ACCEPTED], "and nothing has been packed"
    served = [said.topic for _ in range(MAX_WAITING_OF_DEVICE + 1) for said in serve_next(bench)]
    assert [topic.split("/")[-2] for topic in served] == ["1000", "1001", "whole"]
    assert not bench.executor.held, "what exceeds the limit is not made at all"
    bench.now += COUNT_INTERVAL_SECONDS
    bench.said()
    refused = bench.journal.overview.rejections_of("greedy-pi")
    assert refused == {Reason.RATE_LIMITED: REQUESTS - MAX_WAITING_OF_DEVICE}


def serve_next(bench: Bench) -> list[Publication]:
    bench.said()
    bench.executor.run_next()
    bench.said()
    return bench.said()


def test_base_that_never_was_costs_no_packing(bundle) -> None:
    found = PackedVersions([bundle], lambda _task, number: bundle.files[WEIGHTS_FILE] if number == 0 else None)
    whole = found.find(PackedWeights(TASK, 0, None))
    assert found.find(PackedWeights(TASK, 0, 12345)) is whole
    assert found.find(PackedWeights(TASK, 7, 12345)) is None


def test_device_gets_so_many_chunks_and_others_theirs(tmp_path) -> None:
    bundle = write_bundle(tmp_path / "bundle", graph_bytes=3 * MAX_CHUNK_BYTES)
    settings = replace(OPEN, chunk_allowance=TokenBucket(60.0, 4))
    bench, greedy, honest = Bench(tmp_path / "c.db", bundle, settings), SigningDevice("greedy"), SigningDevice("honest")
    for device in (greedy, honest):
        bench.handle(device, device.enrolment())
    bench.said()
    file = bundle.description.files[TRAIN_FILE]

    def chunks(device: SigningDevice, sequence: int) -> int:
        bench.handle(device, device.blob_request(file, [], sequence))
        return len([said for said in bench.said() if file in said.topic])

    assert [chunks(greedy, sequence) for sequence in range(4)] == [3, 3, 0, 0], "the last one left is enough to ask"
    assert chunks(honest, 1) == 3
    bench.now += 6 * 60.0
    assert chunks(greedy, 9) == 3


def test_requests_of_no_use_are_counted_together(tmp_path, bundle, caplog) -> None:
    bench, device = Bench(tmp_path / "c.db", bundle), SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment())

    def counted() -> int:
        bench.said()
        return sum(bench.journal.overview.rejections_of("kitchen-pi").values())

    bench.handle(device, device.blob_request("ab" * 32, [], 1))
    until(lambda: counted() == 1, "the first is counted at once")
    for sequence in range(2, 7):
        bench.handle(device, device.blob_request(f"{sequence:02d}" * 32, [], sequence))
        bench.said()
    until(lambda: counted() == 6, "the others later, together")
    assert caplog.text.count("file_requests_refused") < 6
