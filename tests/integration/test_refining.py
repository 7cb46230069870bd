"""`tasks refine`: rounds go on from a solved head, in a generation of their own."""

from pathlib import Path

import numpy as np
import pytest

from broker_coordinator.aggregation.retention import Retention
from broker_coordinator.aggregation.solved_heads import refined
from broker_coordinator.commands.refine import refine
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.codec import read_weights, write_weights
from fleet_protocol.errors import ConfigurationError, Reason
from fleet_protocol.kinds import FEATURE_STATISTICS, UPDATE, Manifest, Outcome
from fleet_protocol.solved_head import SolvedHead
from tests.support.bench import Bench
from tests.support.bundles import PARAMETERS, TASK, write_bundle
from tests.support.commands import command
from tests.support.device import SigningDevice
from tests.support.replay import versions_replayed
from tests.support.solved_heads import fleet, head_of

HEAD = SolvedHead(solver="means", precision="float64")
SAMPLES = list(fleet(11, 3))
DEVICES = [SigningDevice(f"pi-{number}") for number in range(3)]
PLAN = AggregationPlan(buffer_size=2, averaged_versions=1)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A head of two devices is version 1."""
    made = Bench(tmp_path / "one.db", write_bundle(tmp_path / "bundle", aggregation=PLAN, solved_head=HEAD))
    for device in DEVICES:
        made.handle(device, device.enrolment())
    for place in (0, 1):
        made.handle(DEVICES[place], SAMPLES[place].message(DEVICES[place], 1, 4, HEAD))
    made.make_versions()
    made.said()
    return made


def manifest(bench: Bench) -> Manifest:
    bench.make_versions()
    return bench.manifests()[-1]


def weights(bench: Bench) -> np.ndarray:
    version = bench.journal.newest_version(TASK)
    return version.state(bench.description.parameters, {}).weights


def outcome(bench: Bench, place: int, message: bytes) -> tuple[Outcome, str]:
    bench.said()
    bench.handle(DEVICES[place], message)
    (receipt,) = bench.receipts()
    return receipt.outcome, receipt.reason


@pytest.mark.parametrize("restarts", [False, True])
def test_rounds_go_on_from_the_head_and_every_version_is_its_replay(bench, tmp_path, capsys, restarts):
    solved = weights(bench)
    (row,) = command(bench, tmp_path, capsys, "tasks", "refine", TASK)
    assert (row["version"], row["generation"]) == (2, 1)
    if restarts:
        bench.restart()
    told = manifest(bench)
    assert (told.version, told.generation) == (2, 1)
    assert weights(bench).tobytes() == solved.tobytes() == head_of(SAMPLES[:2], HEAD).flat().tobytes()
    for place in (0, 1):
        message = DEVICES[place].update(2, base_version=2, generation=1)
        assert outcome(bench, place, message)[0] is Outcome.ACCEPTED
    bench.make_versions()
    assert bench.journal.newest_number(TASK) == 3
    assert not np.array_equal(weights(bench), solved)
    if restarts:
        bench.restart()
    assert versions_replayed(bench.journal, TASK, 2) == 1


def test_bundle_that_the_manifest_names_says_which_kind_is_wanted_and_no_other_is_taken(bench, tmp_path, capsys):
    before = TaskRegistry(bench.journal.engine).task(TASK).bundle
    late = SAMPLES[2].message(DEVICES[2], 1, 4, HEAD)
    command(bench, tmp_path, capsys, "tasks", "refine", TASK)
    told = manifest(bench)
    served = TaskRegistry(bench.journal.engine).bundle(TASK)
    assert told.bundle == served.hash != before
    assert (served.description.versions_from, served.description.solved_head) == ("update", None)
    assert outcome(bench, 2, late)[0] is Outcome.REJECTED
    again = DEVICES[2].sign(FEATURE_STATISTICS, b"\x80", sequence=2, task=TASK, generation=1, base_version=2)
    assert outcome(bench, 2, again) == (Outcome.REJECTED, Reason.MALFORMED)


def test_rollback_restores_the_head_that_rounds_began_with(bench, tmp_path, capsys):
    solved = weights(bench)
    command(bench, tmp_path, capsys, "tasks", "refine", TASK)
    bench.make_versions()
    for place in (0, 1):
        bench.handle(DEVICES[place], DEVICES[place].update(2, base_version=2, generation=1))
    bench.make_versions()
    row = command(bench, tmp_path, capsys, "tasks", "rollback", TASK, "2")
    bench.restart()
    assert (row["version"], row["restored"]) == (4, 2)
    assert weights(bench).tobytes() == solved.tobytes()
    assert versions_replayed(bench.journal, TASK, 2) == 2


def test_statistics_of_a_forgotten_device_stay_in_the_head_and_the_operator_is_told(bench, tmp_path, capsys):
    command(bench, tmp_path, capsys, "tasks", "refine", TASK)
    (row,) = command(bench, tmp_path, capsys, "devices", "forget", "pi-0")
    assert row["version"] is None
    assert "what pi-0 said of its features: the head of version 1, from which rounds went on, has it" in row["remains"]
    assert command(bench, tmp_path, capsys, "devices", "forget", "pi-2") == [], "it had said nothing"


def test_device_that_was_forgotten_before_is_not_in_the_head(bench, tmp_path, capsys):
    command(bench, tmp_path, capsys, "devices", "forget", "pi-0")
    bench.make_versions()
    command(bench, tmp_path, capsys, "tasks", "refine", TASK)
    assert weights(bench).tobytes() == head_of_second().tobytes()
    assert command(bench, tmp_path, capsys, "devices", "forget", "pi-0") == []


def head_of_second() -> np.ndarray:
    return head_of([SAMPLES[1]], HEAD).flat()


def test_retention_drops_what_devices_said_of_their_features_too(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", aggregation=PLAN, solved_head=HEAD)
    bench = Bench(tmp_path / "one.db", bundle, retention=Retention(1, 0, envelopes=1))
    for place in (0, 1):
        bench.handle(DEVICES[place], DEVICES[place].enrolment())
        bench.handle(DEVICES[place], SAMPLES[place].message(DEVICES[place], 1, 4, HEAD))
    bench.make_versions()
    assert all(row.envelope for row in bench.journal.payloads(TASK))
    refine(bench.journal, TASK)
    bench.make_versions()
    for place in (0, 1):
        bench.handle(DEVICES[place], DEVICES[place].update(2, base_version=2, generation=1))
    bench.make_versions()
    kept = {row.kind for row in bench.journal.payloads(TASK) if row.envelope}
    assert kept == {UPDATE.number}


def test_task_goes_back_to_statistics_by_its_own_bundle(bench, tmp_path, capsys):
    command(bench, tmp_path, capsys, "tasks", "refine", TASK)
    (row,) = command(bench, tmp_path, capsys, "tasks", "publish", str(tmp_path / "bundle"))
    assert row["generation"] == 2
    for place in (0, 1):
        message = SAMPLES[place].message(DEVICES[place], 3, 4, HEAD, base_version=3, generation=2)
        bench.handle(DEVICES[place], message)
    bench.make_versions()
    assert weights(bench).tobytes() == head_of(SAMPLES[:2], HEAD).flat().tobytes()
    assert command(bench, tmp_path, capsys, "devices", "forget", "pi-0")[0]["remains"] == ""


@pytest.mark.parametrize(
    ("solved", "statistics", "words"),
    [(None, False, "has no \\[solved_head\\] to go on from"), (HEAD, True, "has no solved head yet")],
)
def test_what_has_no_head_to_go_on_from_is_refused(tmp_path, capsys, solved, statistics, words):
    bench = Bench(tmp_path / "one.db", write_bundle(tmp_path / "bundle", aggregation=PLAN, solved_head=solved))
    bench.handle(DEVICES[0], DEVICES[0].enrolment())
    if statistics:
        bench.handle(DEVICES[0], SAMPLES[0].message(DEVICES[0], 1, 4, HEAD))
    with pytest.raises(ConfigurationError, match=words):
        refine(bench.journal, TASK)


def test_refining_twice_is_refused_as_versions_are_made_from_updates_already(bench):
    refine(bench.journal, TASK)
    with pytest.raises(ConfigurationError, match="its versions are made from update already"):
        refine(bench.journal, TASK)


def test_class_that_no_device_had_scores_as_the_others_on_average_so_that_rounds_can_teach_it(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", aggregation=PLAN, solved_head=HEAD)
    two_classes = [type(each)(each.features, each.labels % 2) for each in SAMPLES]
    head = head_of(two_classes, HEAD).flat()
    found = read_weights(refined(bundle, write_weights(head, PARAMETERS)).weights, PARAMETERS)
    table, bias = found[:32].reshape(4, 8), found[32:]
    np.testing.assert_array_equal(table[:2], head[:16].reshape(2, 8))
    np.testing.assert_allclose(table[2:], np.tile(table[:2].mean(axis=0), (2, 1)))
    assert np.abs(bias).max() < 1e3
