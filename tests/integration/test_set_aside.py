"""What can't be applied is set aside and shown; nothing in the journal stops a start, and nobody else waits for it."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import generate_latest
from sqlalchemy import update

from broker_coordinator.admission.consumer import AnyJournalledConsumer
from broker_coordinator.consumers import CONSUMERS, UPDATE_CONSUMER
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.storage.database import JournalUnavailableError, writing
from broker_coordinator.storage.schema import payloads
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.codec import encode_update
from fleet_protocol.kinds import UPDATE, Outcome, encode_payload
from fleet_protocol.update_plan import UpdatePlan
from tests.kinds.installed import installed
from tests.kinds.round_report.consumer import ROUND_REPORT_CONSUMER, read_state
from tests.kinds.round_report.kind import ROUND_REPORT, RoundReport
from tests.support.bench import KEY, OPEN, Bench
from tests.support.bundles import TASK, write_bundle
from tests.support.device import SigningDevice
from tests.support.replay import versions_replayed

BUFFER = 2
BAD = 13
"""Samples of the update that a consumer fails on."""
PLAN = AggregationPlan(buffer_size=BUFFER, max_staleness=9, server_momentum=0.6)
KITCHEN, GARDEN = SigningDevice("kitchen-pi"), SigningDevice("garden-pi")


class PlantedError(Exception):
    """What a consumer fails with."""


@pytest.fixture
def plan() -> AggregationPlan:
    return PLAN


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def bench(database, tmp_path, plan, metrics) -> Iterator[Bench]:
    bundle = write_bundle(tmp_path / "bundle", aggregation=plan)
    bench = Bench(database, bundle, replace(OPEN, keys=(KEY,)), metrics=metrics)
    for device in (KITCHEN, GARDEN):
        bench.handle(device, device.enrolment())
    yield bench
    bench.journal.close()


@pytest.fixture
def consume() -> Iterator[Callable[[AnyJournalledConsumer], None]]:
    """Puts a consumer in the place of the one that its kind has; the old one comes back."""
    with pytest.MonkeyPatch.context() as patch:
        yield lambda consumer: patch.setitem(CONSUMERS, consumer.kind, consumer)


def failing_on(is_bad: Callable[[object], bool], where: str, error: type[Exception] = PlantedError):
    """The consumer of updates, with one function that fails on some."""

    def partial_(state, items, task):
        if any(map(is_bad, items)):
            raise error("planted " * 40)
        return UPDATE_CONSUMER.partial(state, items, task)

    def item(offered, facts):
        if is_bad(made := UPDATE_CONSUMER.item(offered, facts)):
            raise error("planted")
        return made

    return replace(UPDATE_CONSUMER, **{where: {"partial": partial_, "item": item}[where]})


def is_bad(item) -> bool:
    return item.samples == BAD


def everything(_: object) -> bool:
    return True


def alter(bench: Bench, sequence: int, **columns) -> None:
    with writing(bench.journal.engine) as connection:
        connection.execute(update(payloads).where(payloads.c.sequence == sequence).values(columns))


def damage(bench: Bench, sequence: int) -> None:
    (row,) = [row for row in bench.journal.payloads() if row.sequence == sequence]
    alter(bench, sequence, envelope=row.envelope[:40] + bytes([row.envelope[40] ^ 1]) + row.envelope[41:])


def holders(bench: Bench) -> list[int | None]:
    """The version that holds each update."""
    return [row.aggregate for row in bench.journal.payloads()]


def aside(bench: Bench) -> list[int]:
    """The sequence numbers of what is set aside."""
    return [each.sequence for each in bench.journal.overview.payloads_set_aside(TASK, 100)]


def values_of(metrics: Metrics, name: str) -> list[str]:
    lines = generate_latest(metrics.registry).decode().splitlines()
    return [line for line in lines if line.startswith(name) and "_created" not in line]


def test_losses_whose_sum_no_number_holds_make_a_version(bench) -> None:
    """Rows of a release that admitted them."""
    bench.handle(KITCHEN, KITCHEN.update(1), KITCHEN.update(2), KITCHEN.update(3))
    for sequence in (1, 2, 3):
        alter(bench, sequence, facts={"samples": 8, "loss": 1.7e308, "norm": 0.5})
    bench.restart()
    bench.make_versions()
    bench.restart()
    assert holders(bench) == [1, 1, None]
    assert bench.journal.overview.version_summaries(TASK, 1)[0].mean_loss == 1.7e308
    assert aside(bench) == []
    assert versions_replayed(bench.journal, TASK) == 1


def test_damaged_envelope_is_set_aside_and_shown(bench, metrics, caplog) -> None:
    bench.handle(KITCHEN, *(KITCHEN.update(sequence) for sequence in (1, 2, 3, 4)))
    damage(bench, 2)
    bench.restart()
    bench.make_versions()
    assert holders(bench) == [1, None, 1, None]
    assert bench.journal.overview.update_counts(TASK) == (4, 1)
    (shown,) = bench.journal.overview.payloads_set_aside(TASK, 5)
    assert (shown.device, shown.sequence, shown.kind) == ("kitchen-pi", 2, UPDATE.number)
    assert shown.reason.startswith("its bytes are not those that were admitted: ProtocolError: ")
    assert caplog.text.count("event=payload_set_aside") == 1
    assert "device=kitchen-pi sequence=2" in caplog.text
    assert values_of(metrics, "edgeflock_payloads_set_aside_total") == [
        f'edgeflock_payloads_set_aside_total{{task="{TASK}"}} 1.0'
    ]
    bench.restart()
    bench.handle(KITCHEN, KITCHEN.update(5, base_version=1))
    bench.make_versions()
    assert holders(bench) == [1, None, 1, 2, 2]
    assert versions_replayed(bench.journal, TASK) == 2
    assert caplog.text.count("event=payload_set_aside") == 1, "said once"


def test_damaged_envelope_alone_is_set_aside_whatever_was_applied_before(bench) -> None:
    bench.handle(KITCHEN, KITCHEN.update(1))
    damage(bench, 1)
    bench.restart()
    assert aside(bench) == [1]
    bench.handle(GARDEN, GARDEN.update(1), GARDEN.update(2))
    bench.make_versions()
    assert holders(bench) == [None, 1, 1]


def test_facts_that_cant_be_read_are_set_aside(bench) -> None:
    bench.handle(KITCHEN, *(KITCHEN.update(sequence) for sequence in (1, 2, 3)))
    alter(bench, 2, facts={"samples": "many"})
    bench.restart()
    bench.make_versions()
    assert (holders(bench), aside(bench)) == ([1, None, 1], [2])
    assert versions_replayed(bench.journal, TASK) == 1


@pytest.mark.parametrize("where", ["item", "partial"])
@pytest.mark.parametrize("restarted_after", range(8))
def test_consumer_that_fails_on_one_payload_applies_all_others_once(bench, consume, where, restarted_after) -> None:
    consume(failing_on(is_bad, where))
    bench.restart()
    for number in range(1, 9):
        base = bench.journal.newest_number(TASK)
        bench.handle(KITCHEN, KITCHEN.update(number, base_version=base, samples=BAD if number == 4 else number))
        if number - 1 == restarted_after:
            bench.restart()
        bench.make_versions()
    bench.restart()
    bench.make_versions()
    # What was decoded to be admitted is not made again: only a restart asks `item`.
    if where == "partial" or restarted_after == 3:
        assert holders(bench) == [1, 1, 2, None, 2, 3, 3, None]
        assert aside(bench) == [4]
        assert bench.journal.overview.update_counts(TASK) == (8, 1)
        assert versions_replayed(bench.journal, TASK) == 3
    else:
        assert holders(bench) == [1, 1, 2, 2, 3, 3, 4, 4]


def test_payload_is_to_blame_where_one_that_was_applied_before_passes(bench, consume) -> None:
    bench.handle(KITCHEN, KITCHEN.update(1), KITCHEN.update(2))
    bench.make_versions()
    consume(failing_on(is_bad, "partial"))
    bench.restart()
    for device in (KITCHEN, GARDEN):
        bench.handle(device, device.update(3, samples=BAD))
    bench.make_versions()
    assert (holders(bench), aside(bench)) == ([1, 1, None, None], [3, 3])


@pytest.mark.parametrize("where", ["item", "partial"])
def test_defect_that_fails_every_payload_sets_none_aside(bench, consume, where, metrics, caplog) -> None:
    for number in (1, 2):
        bench.handle(KITCHEN, KITCHEN.update(number))
    bench.make_versions()
    bench.handle(KITCHEN, *(KITCHEN.update(number, base_version=1) for number in (3, 4, 5)))
    consume(failing_on(everything, where))
    bench.restart()
    bench.make_versions()
    bench.handle(GARDEN, GARDEN.update(1, base_version=1))
    bench.make_versions()
    assert bench.receipts()[-1].outcome is Outcome.ACCEPTED
    bench.coordinator.announce_all()
    assert [manifest.version for manifest in bench.manifests()] == [1]
    assert (holders(bench), aside(bench)) == ([1, 1, None, None, None, None], [])
    assert caplog.text.count("event=versions_stopped") == 1
    assert values_of(metrics, "edgeflock_versions_stopped") == [f'edgeflock_versions_stopped{{task="{TASK}"}} 1.0']
    consume(UPDATE_CONSUMER)
    bench.restart()
    bench.make_versions()
    assert holders(bench) == [1, 1, 2, 2, 3, 3]
    assert versions_replayed(bench.journal, TASK) == 3


def test_before_the_first_version_several_devices_failures_are_ours_and_one_devices_its_own(bench, consume) -> None:
    consume(failing_on(everything, "partial"))
    bench.restart()
    bench.handle(KITCHEN, *(KITCHEN.update(number) for number in (1, 2)))
    bench.make_versions()
    assert aside(bench) == [1, 2]
    for device in (KITCHEN, GARDEN):
        bench.handle(device, device.update(3))
    bench.make_versions()
    assert aside(bench) == [1, 2]
    assert bench.journal.overview.update_counts(TASK) == (4, 2)


@pytest.mark.parametrize("error", [MemoryError, OSError])
def test_error_that_no_payload_causes_stops_one_tasks_versions_alone(bench, consume, tmp_path, error) -> None:
    other = write_bundle(tmp_path / "other", task="other", aggregation=PLAN)
    TaskRegistry(bench.journal.engine).publish(other)
    consume(failing_on(is_bad, "partial", error))
    bench.restart()
    bench.handle(KITCHEN, KITCHEN.update(1, samples=BAD), KITCHEN.update(2))
    bench.handle(KITCHEN, KITCHEN.update(3, task="other"), KITCHEN.update(4, task="other"))
    bench.make_versions()
    bench.make_versions()
    assert (holders(bench), aside(bench)) == ([None, None, 1, 1], [])
    assert bench.journal.newest_number("other") == 1
    consume(UPDATE_CONSUMER)
    registry = TaskRegistry(bench.journal.engine)
    registry.set_paused("other", paused=True)
    bench.make_versions()
    assert holders(bench) == [1, 1, 1, 1], "an operator's change has all tasks read again"


def test_stopped_round_sets_no_timer(database, tmp_path, consume) -> None:
    plan = AggregationPlan(buffer_size=BUFFER, strategy="fedavg", max_staleness=0, round_seconds=60.0)
    bench = Bench(database, write_bundle(tmp_path / "bundle", aggregation=plan))
    bench.handle(KITCHEN, KITCHEN.enrolment())
    consume(failing_on(everything, "partial", MemoryError))
    bench.restart()
    bench.handle(KITCHEN, KITCHEN.update(1))
    bench.make_versions()
    assert bench.coordinator.next_due() is not None
    bench.now += 61.0
    bench.make_versions()
    assert bench.coordinator.next_due() is None
    assert aside(bench) == []


def test_wrong_key_sets_no_encrypted_update_aside(bench, tmp_path, caplog) -> None:
    bench.handle(KITCHEN, *(KITCHEN.update(sequence, recipient=KEY.verify_key) for sequence in (1, 2)))
    for settings in (replace(OPEN, keys=()), replace(OPEN, keys=(SigningDevice("other").key,))):
        started = Bench(bench.database, None, settings)
        started.make_versions()
        assert started.journal.newest_number(TASK) == 0
        started.journal.close()
    assert "encrypted for the coordinator key" in caplog.text
    bench.restart()
    bench.make_versions()
    assert (holders(bench), aside(bench)) == ([1, 1], [])


def huge(device: SigningDevice, sequence: int, value: float, **header) -> bytes:
    plan = UpdatePlan(keep_fraction=1.0, quantisation="float32", selection="dense")
    packed = encode_update(np.full(36, value, np.float32), ((4, 8), (4,)), plan, np.random.default_rng(0)).packed
    return device.update(sequence, packed=packed, **header)


@pytest.mark.parametrize("plan", [AggregationPlan(buffer_size=BUFFER, max_delta_norm=1e41)])
def test_weights_that_would_not_be_finite_make_no_version(bench) -> None:
    bench.handle(KITCHEN, huge(KITCHEN, 1, 3e38), huge(KITCHEN, 2, 3e38))
    bench.make_versions()
    assert holders(bench) == [1, 1], "the largest weights that a file can hold"
    bench.handle(KITCHEN, huge(KITCHEN, 3, 3e38, base_version=1))
    bench.handle(GARDEN, huge(GARDEN, 1, -1e37, base_version=1), huge(GARDEN, 2, -1e38, base_version=1))
    bench.make_versions()
    bench.restart()
    bench.make_versions()
    assert (holders(bench), aside(bench)) == ([1, 1, None, 2, 2], [3])
    assert "no longer be finite" in bench.journal.overview.payloads_set_aside(TASK, 1)[0].reason
    assert versions_replayed(bench.journal, TASK) == 2


@pytest.mark.parametrize("plan", [AggregationPlan(buffer_size=1, strategy="ca2fl", max_staleness=9)])
def test_start_serves_a_task_whose_remembered_update_is_damaged(bench, caplog) -> None:
    bench.handle(KITCHEN, KITCHEN.update(1))
    bench.make_versions()
    damage(bench, 1)
    bench.restart()
    bench.handle(GARDEN, GARDEN.update(1, base_version=1))
    bench.make_versions()
    assert [manifest.version for manifest in bench.manifests()] == [1]
    assert bench.journal.newest_number(TASK) == 1
    assert "event=versions_stopped" in caplog.text
    assert bench.journal.overview.update_counts(TASK) == (2, 1)


@pytest.mark.parametrize("restarts", [False, True])
def test_payload_of_a_kind_that_makes_no_versions_is_set_aside_too(bench, consume, restarts) -> None:
    def finish(state, rounds, task):
        if any(trained_through == BAD for _, trained_through in rounds):
            raise PlantedError
        return ROUND_REPORT_CONSUMER.finish(state, rounds, task)

    with installed():
        consume(replace(ROUND_REPORT_CONSUMER, finish=finish))
        bench.restart()
        for sequence, through in enumerate([1, BAD, 2, 3, 4], start=1):
            payload = encode_payload(RoundReport(1, through))
            bench.handle(KITCHEN, KITCHEN.sign(ROUND_REPORT, payload, sequence=sequence, task=TASK))
            if restarts:
                bench.restart()
            bench.make_versions()
        newest = bench.journal.newest_aggregate(TASK, ROUND_REPORT.number)
        assert read_state(newest.state) == {"kitchen-pi": [1, 2, 3, 4]}
        assert (holders(bench), aside(bench)) == ([1, None, 1, 2, 2], [2])
        assert bench.journal.overview.set_aside_count(TASK) == 1


def test_full_disk_sets_aside_later(tmp_path, consume) -> None:
    plan = AggregationPlan(buffer_size=100)
    bench = Bench(tmp_path / "c.db", write_bundle(tmp_path / "bundle", aggregation=plan))
    bench.handle(KITCHEN, KITCHEN.enrolment())
    consume(failing_on(is_bad, "partial"))
    bench.restart()
    numbers = range(1, 151)
    bench.handle(KITCHEN, *(KITCHEN.update(number, samples=8 if number % 3 else BAD) for number in numbers))
    bench.fill_disk()
    with pytest.raises(JournalUnavailableError):
        bench.make_versions()
    assert (holders(bench), aside(bench)) == ([None] * 150, [])
    bench.free_disk()
    bench.make_versions()
    assert holders(bench) == [1 if number % 3 else None for number in numbers]
    assert aside(bench) == list(numbers[2:149:3])
    assert versions_replayed(bench.journal, TASK) == 1
