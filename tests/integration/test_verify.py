"""`tasks verify`: an honest journal is equal to its replay, and whatever is altered in it is found where it is."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import update

from broker_coordinator import cli
from broker_coordinator.aggregation.retention import Retention
from broker_coordinator.storage.database import writing
from broker_coordinator.storage.schema import versions
from broker_coordinator.storage.version_registry import VersionRegistry
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle_files import blob_hash
from fleet_protocol.codec import read_weights, write_weights
from fleet_protocol.keys import write_signing_key
from tests.support.bench import KEY, OPEN, Bench
from tests.support.bundles import PARAMETERS, TASK, write_bundle
from tests.support.coordinator import FLEET
from tests.support.device import SigningDevice

PLAN = AggregationPlan(buffer_size=2, server_momentum=0.6, max_staleness=1, averaged_versions=1)
VERSIONS = 6


class Operator:
    """Verifies the journal of a coordinator that stays open beside it, with six versions; 4 is a rollback's."""

    def __init__(self, folder: Path, bench: Bench, capsys) -> None:
        self.bench, self._capsys = bench, capsys
        self.configuration = folder / "coordinator.toml"
        where = bench.database if isinstance(bench.database, Path) else bench.database.render_as_string()
        self.configuration.write_text(
            f'fleet = "{FLEET}"\nkey_file = "key"\ndatabase = "{where}"\n[broker]\nhost = "localhost"\n'
        )
        key = folder / "key"
        key.touch(mode=0o600)
        key.write_text(write_signing_key(KEY))

    def verify(self, *arguments: object) -> tuple[int, str]:
        """The exit status, and what was said."""
        status = cli.main(["tasks", "--config", str(self.configuration), "verify", *map(str, arguments)])
        said = self._capsys.readouterr()
        return status, said.out + said.err

    def found(self, *arguments: object) -> tuple[int, dict[str, object]]:
        """The exit status, and the answer as JSON."""
        status, said = self.verify(TASK, *arguments, "--json")
        return status, json.loads(said)

    def alter(self, number: int, **columns: object) -> None:
        """Change what the database holds of a version."""
        with writing(self.bench.journal.engine) as connection:
            this = (versions.c.task == TASK, versions.c.number == number)
            connection.execute(update(versions).where(*this).values(columns))


@pytest.fixture
def retention() -> Retention:
    return Retention()


@pytest.fixture
def operator(tmp_path, database, capsys, retention) -> Operator:
    """Every second update is encrypted."""
    bundle = write_bundle(tmp_path / "bundle", aggregation=PLAN)
    bench = Bench(database, bundle, replace(OPEN, keys=(KEY,)), retention=retention)
    device = SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment())
    for sequence in range(1, 2 * VERSIONS - 1):
        base, recipient = bench.journal.newest_number(TASK), KEY.verify_key if sequence % 2 else None
        bench.handle(device, device.update(sequence, base_version=base, samples=sequence, recipient=recipient))
        bench.make_versions()
        if sequence == 6:
            VersionRegistry(bench.journal.engine).roll_back(TASK, 1)
    assert bench.journal.history(TASK).rollbacks == {4: 1}
    assert bench.journal.newest_number(TASK) == VERSIONS
    return Operator(tmp_path, bench, capsys)


def test_journal_is_equal_to_its_replay_while_the_coordinator_runs(operator) -> None:
    status, found = operator.found()
    assert status == 0
    assert found == {
        "task": TASK,
        "start": 0,
        "compared": VERSIONS,
        "dropped": 0,
        "difference": None,
        "equal": True,
    }
    status, said = operator.verify(TASK, "--from", 4)
    assert status == 0
    assert said.split() == f"task {TASK} start 4 compared 2 dropped 0 difference - equal yes".split()


def nudged(values: bytes, entry: int) -> bytes:
    """float32 values with one of them changed in its last bit."""
    changed = np.frombuffer(values, "<u4").copy()
    changed[entry] ^= 1
    return changed.tobytes()


@pytest.mark.parametrize("number", [0, 3, 4, VERSIONS])
def test_one_bit_of_the_published_weights_is_found(operator, number) -> None:
    weights = read_weights(operator.bench.journal.version(TASK, number).weights, PARAMETERS)
    altered = write_weights(np.frombuffer(nudged(weights.tobytes(), 33), "<f4"), PARAMETERS)
    operator.alter(number, weights=altered, weights_hash=blob_hash(altered))
    status, found = operator.found()
    assert (status, found["equal"]) == (1, False)
    assert found["compared"] == max(0, number - 1)
    assert found["difference"] == {"version": number, "part": "weights", "tensor": "head.bias", "entry": 1}


@pytest.mark.parametrize("part", ["unrounded", "moments"])
@pytest.mark.parametrize("number", [2, VERSIONS])
def test_one_bit_of_what_the_next_version_is_made_from_is_found(operator, part, number) -> None:
    operator.alter(number, **{part: nudged(getattr(operator.bench.journal.version(TASK, number), part), 7)})
    status, found = operator.found()
    assert status == 1
    assert found["difference"] == {"version": number, "part": part, "tensor": "head.weight", "entry": 7}


@pytest.mark.parametrize(
    ("altered", "part"),
    [
        ({"weights": b"no safetensors"}, "weights"),
        ({"moments": b""}, "moments"),
        ({"weights_hash": "0" * 64}, "weights_hash"),
    ],
)
def test_what_holds_no_such_number_is_found_by_its_part(operator, altered, part) -> None:
    operator.alter(3, **altered)
    status, found = operator.found()
    assert status == 1
    assert found["difference"] == {"version": 3, "part": part, "tensor": "", "entry": None}


def test_weights_in_a_file_of_another_form_are_found(operator) -> None:
    weights = operator.bench.journal.version(TASK, 2).weights
    header = int.from_bytes(weights[:8], "little") + 8
    longer = header.to_bytes(8, "little") + weights[8:header] + b" " * 8 + weights[header:]
    operator.alter(2, weights=longer, weights_hash=blob_hash(longer))
    status, said = operator.verify(TASK)
    assert status == 1
    assert "version=2 part=header of the weights" in said


def test_start_is_taken_as_it_is_stored(operator) -> None:
    operator.alter(5, moments=nudged(operator.bench.journal.version(TASK, 5).moments, 0))
    assert operator.found("--from", 5)[1]["difference"]["version"] == VERSIONS


@pytest.mark.parametrize("retention", [Retention(versions=3, every=0)])
def test_versions_without_weights_are_passed_over_and_counted(operator) -> None:
    status, found = operator.found()
    assert (status, found["compared"], found["dropped"]) == (0, 3, 3)
    assert [version.number for version in operator.bench.journal.versions(TASK)] == [0, 4, 5, 6]


@pytest.mark.parametrize("retention", [Retention(envelopes=2)])
def test_dropped_envelope_is_named_with_where_to_begin(operator) -> None:
    status, said = operator.verify(TASK)
    assert status == 2
    assert "the envelope of update 1 of kitchen-pi, in version 1, is dropped; begin with version" in said
    assert operator.found("--from", 4)[1]["compared"] == 2


def test_start_without_the_weights_that_its_strategy_remembers_is_refused(tmp_path, database, capsys) -> None:
    """Else a replay would build on other weights than the coordinator did, and call the versions different."""
    plan = AggregationPlan(buffer_size=1, strategy="fedasync", max_staleness=2, averaged_versions=1)
    bundle = write_bundle(tmp_path / "bundle", aggregation=plan)
    bench, device = Bench(database, bundle, retention=Retention(versions=1, every=5)), SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment())
    for sequence in range(1, 9):
        base = max(0, bench.journal.newest_number(TASK) - 2)
        bench.handle(device, device.update(sequence, base_version=base))
        bench.make_versions()
    operator = Operator(tmp_path, bench, capsys)
    status, said = operator.verify(TASK, "--from", 5)
    assert status == 2
    assert "needs the weights of the 2 versions before it" in said
    status, found = operator.found()
    assert (status, found["compared"], found["dropped"]) == (0, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["roses"], f"serves no task 'roses'; it serves {TASK}"),
        ([TASK, "--from", 9], f"version 9 of task '{TASK}' is not in the journal"),
    ],
)
def test_what_is_not_there_is_named(operator, arguments, complaint) -> None:
    status, said = operator.verify(*arguments)
    assert status == 2
    assert complaint in said


def test_encrypted_updates_need_the_coordinators_key(operator) -> None:
    (operator.configuration.parent / "key").unlink()
    status, said = operator.verify(TASK)
    assert status == 2
    assert "broker-coordinator keygen" in said
    key = operator.configuration.parent / "key"
    key.touch(mode=0o600)
    key.write_text(write_signing_key(SigningDevice("other").key))
    status, said = operator.verify(TASK)
    assert status == 2
    assert "encrypted for the coordinator key" in said


def test_verifying_makes_no_database(tmp_path, capsys) -> None:
    bench = Bench(tmp_path / "other.db", None)
    operator = Operator(tmp_path, bench, capsys)
    operator.configuration.write_text(operator.configuration.read_text().replace("other.db", "missing.db"))
    status, said = operator.verify(TASK)
    assert status == 2
    assert "missing.db does not exist" in said
    assert not (tmp_path / "missing.db").exists()
