"""Taking in, making versions and serving files share only a database: apart they do what they do together."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from broker_coordinator.admission.admission import Admission
from broker_coordinator.admission.decisions import (
    Accepted,
    Enrolled,
    FileRequested,
    Message,
    PresenceSeen,
    Refused,
    Repeated,
)
from broker_coordinator.admission.fleet_view import Decided, Device, DeviceState, FleetView
from broker_coordinator.aggregation.retention import Retention
from broker_coordinator.consumers import CONSUMERS, UpdateFacts
from broker_coordinator.distribution.signed_messages import MessageSigner
from broker_coordinator.serving.answers import Answer, Receipts, answer_to
from broker_coordinator.serving.file_server import FileServer
from broker_coordinator.serving.intake import Intake
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.serving.version_maker import VersionMaker
from broker_coordinator.serving.waiting import DecodedBatch, DecodedBatches, WaitingPayload
from broker_coordinator.storage import journal_reader
from broker_coordinator.storage.database import Database
from broker_coordinator.storage.journal import Journal, JournalEntry
from broker_coordinator.storage.records import items_together
from broker_coordinator.storage.schema import versions
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_host.rate_limit import UNLIMITED
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.envelope import Header, read_envelope
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import RECEIPT, UPDATE, Outcome, Receipt, decode_payload
from fleet_protocol.limits import MAX_CONTROL_BYTES
from tests.support.bench import KEY, OPEN, Bench
from tests.support.bundles import TASK, write_bundle
from tests.support.coordinator import FLEET, SHARD
from tests.support.device import SigningDevice
from tests.support.replay import versions_replayed
from tests.support.waiting import until

SIGNER = MessageSigner(KEY, FLEET, SHARD)


class Apart:
    """Each job with a connection and a memory of its own, as in processes of their own; `intakes` take turns. The first
    one hands over so many payloads.
    """

    def __init__(self, database: Database, bundle, intakes: int = 1, handed_over: int = 0) -> None:
        self._database = database
        decoded = DecodedBatches(handed_over)
        self._journals: list[Journal] = []
        self.journal = self._open()
        TaskRegistry(self.journal.engine).publish(bundle)
        self.intakes = [self.restarted_intake(decoded if not number else None) for number in range(intakes)]
        maker = self._open()
        self.maker = VersionMaker(
            maker,
            TaskRegistry(maker.engine),
            SIGNER,
            (),
            retention=Retention(),
            metrics=Metrics(),
            on_version=lambda _task, _number: None,
            decoded=decoded,
        )
        server = self._open()
        self.server = FileServer(server, TaskRegistry(server.engine), SIGNER, metrics=Metrics(), allowance=UNLIMITED)

    def _open(self) -> Journal:
        self._journals.append(Journal.open(self._database))
        return self._journals[-1]

    def close(self) -> None:
        for journal in self._journals:
            journal.close()

    def restarted_intake(self, decoded: DecodedBatches | None = None) -> Intake:
        journal = self._open()
        registry, admission = TaskRegistry(journal.engine), Admission(OPEN, CONSUMERS)
        return Intake(journal, registry, SIGNER, admission, metrics=Metrics(), decoded=decoded or DecodedBatches(0))

    def handle(self, device: SigningDevice, *messages: bytes, intake: int = 0) -> list[FileRequested]:
        return self.intakes[intake].handle([Message(device.up, data) for data in messages], 0.0)

    def receipts(self, intake: int = 0) -> list[Receipt]:
        said = [read_envelope(each.data, MAX_CONTROL_BYTES) for each in self.intakes[intake].publications(1000)]
        return [decode_payload(envelope.payload, Receipt) for envelope in said if envelope.header.kind is RECEIPT]


@pytest.fixture
def start_apart(database) -> Iterator[Callable[..., Apart]]:
    started: list[Apart] = []

    def start(*arguments, **options) -> Apart:
        started.append(Apart(database, *arguments, **options))
        return started[-1]

    yield start
    for apart in started:
        apart.close()


def test_version_maker_makes_of_the_journal_alone_what_it_makes_with_the_cache(tmp_path, start_apart, bundle) -> None:
    apart, together, device = start_apart(bundle), Bench(tmp_path / "other.db", bundle), SigningDevice("kitchen-pi")
    for each in (apart, together):
        each.handle(device, device.enrolment())
    for sequence in range(1, 11):
        data = device.update(sequence, base_version=(sequence - 1) // 3, samples=sequence)
        apart.handle(device, data)
        apart.maker.make_versions(0.0)
        together.handle(device, data)
        together.make_versions()
    assert list(apart.journal.versions(TASK)) == list(together.journal.versions(TASK))
    assert [row.staleness for row in apart.journal.updates()] == [row.staleness for row in together.journal.updates()]
    assert versions_replayed(apart.journal, TASK) == 3


def test_rows_that_are_read_by_runs_are_those_that_are_read_one_by_one(start_apart, bundle, monkeypatch) -> None:
    apart, device = start_apart(bundle), SigningDevice("kitchen-pi")
    apart.handle(device, device.enrolment())
    for sequence in range(1, 10):
        apart.handle(device, device.update(sequence, samples=0 if sequence in {3, 7} else 8))
    every = list(apart.journal.updates())
    assert len(every) == 7
    positions = [row.position for row in every]
    assert list(apart.journal.at_positions(positions)) == every
    monkeypatch.setattr(journal_reader, "MOST_RUNS", 0)
    assert list(apart.journal.at_positions(positions)) == every


@pytest.mark.parametrize("late", [False, True], ids=["behind", "amid"])
def test_what_the_leader_has_decoded_is_not_read_again_though_other_intakes_payloads_lie_between(
    start_apart, bundle, monkeypatch, late
) -> None:
    apart = start_apart(bundle, intakes=2, handed_over=100)
    devices = [SigningDevice("kitchen-pi"), SigningDevice("garden-pi")]
    for intake, device in enumerate(devices):
        apart.handle(device, device.enrolment(), intake=intake)
    read, at_positions, write = [], Journal.at_positions, Journal.write

    def note(journal: Journal, positions):
        read.extend(positions)
        return at_positions(journal, positions)

    def let_the_other_write_first(journal: Journal, entry) -> int:
        monkeypatch.setattr(Journal, "write", write)
        apart.handle(devices[1], devices[1].update(1), intake=1)
        return write(journal, entry)

    monkeypatch.setattr(Journal, "at_positions", note)
    apart.handle(devices[0], devices[0].update(1))
    if late:
        monkeypatch.setattr(Journal, "write", let_the_other_write_first)
    else:
        apart.handle(devices[1], devices[1].update(1), intake=1)
    apart.handle(devices[0], devices[0].update(2), devices[0].update(3))
    apart.handle(devices[1], devices[1].update(2), intake=1)
    apart.handle(devices[0], devices[0].update(4))
    apart.maker.make_versions(0.0)
    assert read == [2, 5]
    assert [(row.position, row.aggregate) for row in apart.journal.updates()] == [
        (1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2)
    ]  # fmt: skip
    assert versions_replayed(apart.journal, TASK) == 2


def test_rows_that_are_decoded_together_are_what_each_is_alone(start_apart, bundle) -> None:
    apart, devices = start_apart(bundle), [SigningDevice("kitchen-pi"), SigningDevice("garden-pi")]
    for device in devices:
        apart.handle(device, device.enrolment())
        apart.handle(device, *(device.update(sequence, samples=sequence) for sequence in range(1, 5)))
    rows = list(apart.journal.updates())
    rows[2] = replace(rows[2], envelope=b"what a failing disk leaves")
    found = items_together(rows, bundle.description, ())
    assert [row for row, _ in found] == rows
    assert isinstance(found[2][1], ProtocolError)
    for row, item in found[:2] + found[3:]:
        alone = row.item(bundle.description, ())
        assert item.delta.values.tobytes() == alone.delta.values.tobytes()
        assert item.delta.indices.tobytes() == alone.delta.indices.tobytes()
        assert (item.device, item.samples, item.staleness) == (alone.device, alone.samples, alone.staleness)


def test_positions_are_the_journals_whoever_takes_in(start_apart, tmp_path) -> None:
    bundle = write_bundle(tmp_path / "bundle", aggregation=AggregationPlan(buffer_size=3))
    apart, devices = start_apart(bundle, intakes=2), [SigningDevice("kitchen-pi"), SigningDevice("garden-pi")]
    for intake, device in enumerate(devices):
        apart.handle(device, device.enrolment(), intake=intake)
    for sequence in range(1, 7):
        for intake, device in enumerate(devices):
            apart.handle(device, device.update(sequence), device.update(100 + sequence, samples=0), intake=intake)
    rows = list(apart.journal.updates())
    positions = [row.position for row in rows]
    assert positions == sorted(set(positions)), "each its own, in the order of receipt"
    assert [row.device for row in rows] == ["kitchen-pi", "garden-pi"] * 6
    apart.maker.make_versions(0.0)
    assert [row.aggregate for row in apart.journal.updates()] == [number for number in (1, 2, 3, 4) for _ in range(3)]


def test_staleness_is_measured_against_versions_and_full_buffers_of_others(start_apart, bundle) -> None:
    apart, devices = start_apart(bundle, intakes=2), [SigningDevice("kitchen-pi"), SigningDevice("garden-pi")]
    for intake, device in enumerate(devices):
        apart.handle(device, device.enrolment(), intake=intake)
    apart.handle(devices[0], *(devices[0].update(sequence) for sequence in (1, 2, 3)), intake=0)
    apart.handle(devices[1], devices[1].update(1), intake=1)
    apart.maker.make_versions(0.0)
    apart.handle(devices[1], devices[1].update(2), devices[1].update(3, base_version=1), intake=1)
    apart.handle(devices[0], devices[0].update(4), devices[0].update(5, base_version=3), intake=0)
    assert [row.staleness for row in apart.journal.updates()] == [0, 0, 0, 1, 1, 0, 2]
    assert apart.receipts(intake=0)[-1].reason == Reason.UNKNOWN_VERSION.value


def test_repeat_that_comes_to_another_intake_gets_the_outcome_that_is_journalled(start_apart, tmp_path) -> None:
    plan = AggregationPlan(buffer_size=1, max_staleness=0)
    apart, device = start_apart(write_bundle(tmp_path / "bundle", aggregation=plan), intakes=2), SigningDevice("pi")
    apart.handle(device, device.enrolment(), intake=0)
    apart.intakes[1] = apart.restarted_intake()
    update, refused = device.update(1), device.update(2, base_version=7)
    apart.handle(device, update, refused, intake=0)
    apart.maker.make_versions(0.0)
    apart.handle(device, update, refused, intake=1)
    assert [receipt.reason for receipt in apart.receipts(intake=1)] == ["", Reason.UNKNOWN_VERSION.value]
    assert len(list(apart.journal.updates())) == 1


@pytest.mark.parametrize("samples", [8, 0], ids=["accepted", "refused"])
def test_update_that_two_intakes_decide_on_at_once_has_one_outcome(start_apart, bundle, samples, monkeypatch) -> None:
    """The other one commits after this one has decided, and before it commits."""
    apart, device = start_apart(bundle, intakes=2), SigningDevice("pi")
    apart.handle(device, device.enrolment(), intake=0)
    apart.receipts(intake=0)
    apart.intakes[1] = apart.restarted_intake()
    update = device.update(1, samples=samples)
    write = Journal.write

    def write_late(journal: Journal, entry: JournalEntry) -> int:
        monkeypatch.setattr(Journal, "write", write)
        apart.handle(device, update, intake=0)
        apart.maker.make_versions(0.0)
        return write(journal, entry)

    monkeypatch.setattr(Journal, "write", write_late)
    apart.handle(device, update, device.update(2), intake=1)
    first, second = (apart.receipts(intake=intake) for intake in (0, 1))
    assert first[0].reason == second[0].reason == ("" if samples else Reason.OUT_OF_BOUNDS.value)
    assert second[1].outcome is Outcome.ACCEPTED
    assert [row.sequence for row in apart.journal.updates()] == ([1, 2] if samples else [2])


def batch(after: int, size: int, refused: int = 0) -> DecodedBatch:
    """`size` payloads behind the position `after`, and then as many refused ones."""
    payloads = [(TASK, 6, WaitingPayload(after + 1 + number, "kitchen-pi", 0, None, None)) for number in range(size)]
    return DecodedBatch(after, after + size + refused, payloads)


def test_batches_are_handed_over_once_and_only_where_they_follow_without_a_gap() -> None:
    decoded = DecodedBatches(100)
    for each in (batch(0, 2), batch(2, 1, refused=3), batch(6, 2), batch(9, 2)):
        decoded.keep(each)
    taken = decoded.take(2)
    assert (taken.through, [waiting.position for _, _, waiting in taken.payloads]) == (8, [3, 7, 8])
    assert decoded.take(8) == DecodedBatch(8, 8, [])
    assert decoded.take(9) == batch(9, 2)
    assert decoded.take(9) == DecodedBatch(9, 9, [])


def test_batches_behind_a_gap_are_handed_over_by_position() -> None:
    decoded = DecodedBatches(100)
    for each in (batch(0, 2), batch(3, 2), batch(7, 1, refused=1), batch(9, 1)):
        decoded.keep(each)
    assert decoded.take(0).through == 2
    assert [*decoded.take_through(9)] == [4, 5, 8]
    assert decoded.take_through(9) == {}
    assert [*decoded.take_through(10)] == [10]


def test_batches_to_hand_over_are_bounded_and_the_oldest_is_forgotten() -> None:
    decoded = DecodedBatches(4)
    for after in (0, 2, 4):
        decoded.keep(batch(after, 2))
    assert decoded.take(0) == DecodedBatch(0, 0, [])
    for after in (0, 2, 4):
        decoded.keep(batch(after, 2))
    assert decoded.take(2).through == 6
    decoded.keep(batch(6, 5))
    assert decoded.take(6) == DecodedBatch(6, 6, [])


def test_file_that_cannot_be_made_holds_up_no_receipt(database, bundle, caplog) -> None:
    bench, device = Bench(database, bundle), SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment())
    bench.said()
    with bench.journal.engine.begin() as connection:
        connection.execute(versions.update().values(weights=b"what a failing disk leaves"))
    bench.handle(device, device.weights_request(0, None, 1), device.update(1))
    assert [receipt.outcome for receipt in bench.receipts()] == [Outcome.ACCEPTED]
    until(lambda: bench.said() or bench.journal.overview.rejections_of("kitchen-pi"), "the request is counted")
    assert bench.journal.overview.rejections_of("kitchen-pi") == {Reason.WRONG_HASH: 1}
    assert "file_failed" in caplog.text


def test_file_server_hears_of_a_published_task_by_itself(start_apart, bundle, tmp_path) -> None:
    apart, device = start_apart(bundle), SigningDevice("kitchen-pi")
    roses = write_bundle(tmp_path / "roses", task="roses")
    TaskRegistry(apart.journal.engine).publish(roses)
    apart.handle(device, device.enrolment())
    requests = apart.handle(device, device.blob_request(roses.hash, [], 1))
    apart.server.request(requests, 0.0)
    assert [roses.hash in said.topic for said in apart.server.publications(10, 1.0)] == [True]


HEADER = Header(UPDATE, 4, TASK, 0, b"")
KITCHEN = Device("kitchen-pi", KEY.verify_key, DeviceState.APPROVED)
PENDING = Device("kitchen-pi", KEY.verify_key, DeviceState.PENDING)
ANSWERS = {
    "accepted": (
        Accepted("kitchen-pi", HEADER, b"", b"d", 0, UpdateFacts(1, 0.0, 0.0), None),
        Answer("kitchen-pi", b"d", final=True, task=TASK),
    ),
    "repeated": (
        Repeated("kitchen-pi", 4, Decided(b"d", Reason.TOO_STALE, "late"), TASK),
        Answer("kitchen-pi", b"d", Reason.TOO_STALE, "late", final=True, task=TASK),
    ),
    "enrolled": (Enrolled(KITCHEN, b"d"), Answer("kitchen-pi", b"d")),
    "awaiting approval": (
        Enrolled(PENDING, b"d"),
        Answer("kitchen-pi", b"d", Reason.UNKNOWN_KEY, "kitchen-pi is recorded and awaits approval"),
    ),
    "refused": (
        Refused("kitchen-pi", Reason.MALFORMED, "why", b"d", verified=True),
        Answer("kitchen-pi", b"d", Reason.MALFORMED, "why"),
    ),
    "refused for good": (
        Refused("kitchen-pi", Reason.TOO_STALE, "late", b"d", verified=True, header=HEADER),
        Answer("kitchen-pi", b"d", Reason.TOO_STALE, "late", final=True, task=TASK),
    ),
    "refused from nobody": (Refused(None, Reason.MALFORMED, "why", b"d"), None),
    "refused in silence": (Refused("kitchen-pi", Reason.MALFORMED, "why", b"d", answered=False), None),
    "file": (FileRequested(KITCHEN, "ab" * 32, ()), None),
    "presence": (PresenceSeen(KITCHEN), None),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_every_decision_has_its_answer(case) -> None:
    decision, answer = ANSWERS[case]
    assert answer_to(decision) == answer


def test_receipt_says_how_far_the_device_is_and_a_stranger_gets_few() -> None:
    view, receipts = FleetView(lambda _device, _sequence: None), Receipts(SIGNER)
    view.set_decided("kitchen-pi", 9, Decided(b""))
    digest = bytes(16)
    genuine = Refused("kitchen-pi", Reason.MALFORMED, "why", digest, verified=True)
    forged = Refused("kitchen-pi", Reason.BAD_SIGNATURE, "why", digest)
    for _ in range(3):
        said = receipts.receipt(genuine, view, 0.0)
        receipt = decode_payload(read_envelope(said.data, MAX_CONTROL_BYTES).payload, Receipt)
        assert (receipt.reason, receipt.highest_sequence) == ("malformed", 9)
    assert [receipts.receipt(forged, view, now) is not None for now in (0.0, 0.1, 6.0)] == [True, False, True]
