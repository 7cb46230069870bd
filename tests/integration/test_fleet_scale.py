"""A task that awaits its scale at the coordinator: from its devices' statistics to its next generation."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from broker_coordinator.aggregation.fleet_scale import PATIENCE
from broker_coordinator.commands.export import write_bundle as write_bundle_folder
from broker_coordinator.commands.scale import scale_shown
from broker_coordinator.consumers.statistics import read_scale
from broker_coordinator.storage.task_registry import TaskRegistry
from broker_coordinator.storage.task_scales import scale_made
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.codec import Moments
from fleet_protocol.encryption import encrypt_payload
from fleet_protocol.errors import ConfigurationError, Reason
from fleet_protocol.kinds import ENCRYPTED_STATISTICS, STATISTICS, Outcome, Statistics, encode_payload
from fleet_protocol.limits import MAX_SAMPLES_PER_UPDATE
from fleet_protocol.scaling import Scale, Scaling
from tests.support.bench import KEY, OPEN, Bench
from tests.support.bundles import TASK, write_bundle
from tests.support.device import SigningDevice

COLUMNS = 8
GENERATOR = np.random.default_rng(1)


def awaiting_bundle(folder: Path) -> Bundle:
    description = write_bundle(folder).description
    changed = msgspec.structs.replace(description, scaling=Scaling(Scale.awaiting(COLUMNS)))
    (folder / DESCRIPTION_FILE).write_bytes(msgspec.json.encode(changed))
    return load_bundle(folder)


@pytest.fixture
def bench(database, tmp_path) -> Bench:
    return Bench(database, awaiting_bundle(tmp_path / "bundle"))


def enrolled(bench: Bench, count: int) -> list[SigningDevice]:
    devices = [SigningDevice(f"pi-{number}") for number in range(count)]
    for device in devices:
        bench.handle(device, device.enrolment())
    bench.said()
    return devices


def samples(factor: float = 1.0) -> np.ndarray:
    return (GENERATOR.normal(0.2, 0.001, (20, COLUMNS)) * factor).astype(np.float32)


def signed(
    device: SigningDevice, moments: Moments, *, count: int = 20, sequence: int = 1, generation: int = 0
) -> bytes:
    payload = encode_payload(Statistics(count, moments.encode()))
    return device.sign(STATISTICS, payload, sequence=sequence, task=TASK, base_version=0, generation=generation)


def report(bench: Bench, device: SigningDevice, table: np.ndarray, **header: int) -> str:
    """Send statistics; the reason in the receipt, empty where they are accepted."""
    bench.handle(device, signed(device, Moments.of(table), **header))
    (receipt,) = bench.receipts()
    bench.make_versions()
    return receipt.reason


def scale_of(bench: Bench) -> Scale:
    scale = TaskRegistry(bench.journal.engine).bundle(TASK).description.scaling.inputs
    assert scale is not None
    return scale


def test_half_of_the_fleet_makes_the_scale_of_the_next_generation(bench) -> None:
    devices = enrolled(bench, 6)
    bench.make_versions()
    bench.said()
    tables = [samples() for _ in range(3)]
    assert [report(bench, *pair) for pair in zip(devices[:2], tables[:2], strict=True)] == ["", ""]
    assert scale_of(bench).awaited
    assert report(bench, devices[2], tables[2]) == ""
    whole = np.concatenate(tables).astype(np.float64)
    assert scale_of(bench) == Scale(
        pytest.approx(whole.mean(axis=0).tolist()), pytest.approx(whole.std(axis=0).tolist())
    )
    task = TaskRegistry(bench.journal.engine).task(TASK)
    assert (task.generation, task.first_version) == (1, 1)
    manifest = bench.manifests()[-1]
    assert (manifest.generation, manifest.version, manifest.bundle) == (1, 1, task.bundle)
    assert manifest.weights == bench.journal.newest_version(TASK).weights_hash


def test_updates_make_versions_in_the_generation_that_has_the_scale(bench) -> None:
    devices = enrolled(bench, 3)
    for device in devices:
        report(bench, device, samples())
    assert report(bench, devices[0], samples(), sequence=2) == Reason.OLD_GENERATION.value, "it came too late"
    for device in devices:
        bench.handle(device, device.update(3, base_version=1, generation=1))
    assert {receipt.outcome for receipt in bench.receipts()} == {Outcome.ACCEPTED}
    bench.make_versions()
    assert bench.journal.newest_number(TASK) == 2


def test_statistics_of_a_task_that_has_its_scale_are_refused_in_words(bench) -> None:
    devices = enrolled(bench, 3)
    for device in devices:
        report(bench, device, samples())
    data = devices[0].sign(
        STATISTICS,
        encode_payload(Statistics(20, Moments.of(samples()).encode())),
        sequence=2,
        task=TASK,
        base_version=1,
        generation=1,
    )
    bench.handle(devices[0], data)
    (receipt,) = bench.receipts()
    assert (receipt.reason, "awaits no statistics" in receipt.detail) == (Reason.MALFORMED.value, True)


def test_reports_wait_through_a_restart(bench) -> None:
    devices = enrolled(bench, 3)
    report(bench, devices[0], samples())
    report(bench, devices[1], samples())
    bench.restart()
    bench.make_versions()
    assert scale_of(bench).awaited
    report(bench, devices[2], samples())
    assert not scale_of(bench).awaited


def test_coordinator_that_is_killed_between_report_and_scale_makes_it_at_its_start(bench) -> None:
    devices = enrolled(bench, 3)
    for device in devices:
        bench.handle(device, signed(device, Moments.of(samples())))
    bench.restart()
    bench.make_versions()
    assert not scale_of(bench).awaited
    assert TaskRegistry(bench.journal.engine).task(TASK).generation == 1


@pytest.mark.parametrize(
    ("reports", "devices", "enough"), [(1, 2, PATIENCE[1]), (3, 20, PATIENCE[2]), (1, 20, PATIENCE[3])]
)
def test_scale_is_made_in_time_of_what_has_come(bench, reports, devices, enough) -> None:
    fleet = enrolled(bench, devices)
    for device in fleet[:reports]:
        bench.handle(device, signed(device, Moments.of(samples())))
    bench.make_versions()
    began = bench.now
    assert scale_of(bench).awaited
    assert bench.coordinator.next_due() <= began + enough.seconds
    bench.said()
    assert bench.coordinator.next_due() == pytest.approx(began + enough.seconds)
    bench.now = began + enough.seconds - 1
    bench.make_versions()
    assert scale_of(bench).awaited
    bench.now = began + enough.seconds
    bench.make_versions()
    assert not scale_of(bench).awaited


def test_device_that_reports_twice_counts_once(bench) -> None:
    devices = enrolled(bench, 6)
    for sequence in (1, 2, 3):
        report(bench, devices[0], samples(), sequence=sequence)
    assert scale_of(bench).awaited


def test_device_with_other_units_is_named_in_the_aggregate_and_the_log(bench, caplog) -> None:
    devices = enrolled(bench, 4)
    bench.handle(devices[0], signed(devices[0], Moments.of(samples(0.001))))
    for device in devices[1:]:
        bench.handle(device, signed(device, Moments.of(samples())))
    with caplog.at_level("INFO"):
        bench.make_versions()
    assert "event=units_differ" in caplog.text
    scale = read_scale(scale_made(bench.journal.engine, TASK))
    assert (list(scale.left_out), scale.devices, scale.samples) == (["pi-0"], 3, 60)


GOOD = Moments.of(samples())


@pytest.mark.parametrize(
    ("moments", "count", "reason", "words"),
    [
        (GOOD, 0, Reason.OUT_OF_BOUNDS, "0 samples; allowed are 1 to"),
        (GOOD, MAX_SAMPLES_PER_UPDATE + 1, Reason.OUT_OF_BOUNDS, "allowed are 1 to 1000000"),
        (GOOD, 10, Reason.OUT_OF_BOUNDS, "the count of column 0 is 20"),
        (Moments(GOOD.counts - 0.5, GOOD.means, GOOD.squares), 20, Reason.OUT_OF_BOUNDS, "the count of column 0"),
        (Moments(-GOOD.counts, GOOD.means, GOOD.squares), 20, Reason.OUT_OF_BOUNDS, "the count of column 0"),
        (Moments(GOOD.counts, GOOD.means + 1, GOOD.squares), 20, Reason.OUT_OF_BOUNDS, "the mean of column 0 is 1."),
        (Moments(GOOD.counts, GOOD.means * 1e300, GOOD.squares), 20, Reason.OUT_OF_BOUNDS, "the mean of column 0"),
        (
            Moments(GOOD.counts, GOOD.means, GOOD.squares + 1e9),
            20,
            Reason.OUT_OF_BOUNDS,
            "the sum of squares of column 0",
        ),
        (Moments(GOOD.counts, GOOD.means, -GOOD.squares), 20, Reason.OUT_OF_BOUNDS, "the sum of squares of column 0"),
        (Moments(GOOD.counts, GOOD.means, GOOD.squares * np.nan), 20, Reason.NOT_FINITE, "NaN or infinity"),
        (Moments.of(samples()[:, 1:]), 20, Reason.WRONG_SHAPE, "8 columns take 192"),
    ],
)
def test_statistics_that_no_samples_of_the_task_have_are_refused_in_words(bench, moments, count, reason, words) -> None:
    (device,) = enrolled(bench, 1)
    bench.handle(device, signed(device, moments, count=count))
    (receipt,) = bench.receipts()
    assert receipt.reason == reason.value
    assert words in receipt.detail


def test_encrypted_statistics_are_taken(database, tmp_path) -> None:
    bench = Bench(database, awaiting_bundle(tmp_path / "bundle"), replace(OPEN, keys=(KEY,)))
    for device in enrolled(bench, 3):
        payload = encode_payload(Statistics(20, Moments.of(samples()).encode()))
        box = encrypt_payload(device.key, KEY.verify_key, 1, payload)
        bench.handle(device, device.sign(ENCRYPTED_STATISTICS, box, sequence=1, task=TASK))
    bench.make_versions()
    assert not scale_of(bench).awaited


def test_tasks_show_says_how_many_have_reported_what_the_scale_is_made_of_and_whose_units_differ(bench) -> None:
    def shown() -> dict[str, object]:
        description = TaskRegistry(bench.journal.engine).bundle(TASK).description
        return scale_shown(bench.journal.engine, description)

    devices = enrolled(bench, 3)
    report(bench, devices[0], samples())
    assert shown() == {"scale": "awaited; devices that have reported: 1"}
    report(bench, devices[1], samples())
    report(bench, devices[2], samples(0.001))
    assert shown()["scale"] == "of 40 samples of 2 devices"
    (unlike,) = shown()["units_differ"]
    assert unlike["device"] == "pi-2"


def test_bundle_with_the_scale_can_be_written_to_predict_with(bench, tmp_path) -> None:
    devices = enrolled(bench, 3)
    for device in devices:
        report(bench, device, samples())
    served = TaskRegistry(bench.journal.engine).bundle(TASK)
    write_bundle_folder(tmp_path / "served", served)
    assert load_bundle(tmp_path / "served").description.scaling.inputs == scale_of(bench)
    with pytest.raises(ConfigurationError, match="name a new folder"):
        write_bundle_folder(tmp_path / "served", served)


def test_another_bundle_awaits_a_scale_of_its_own(bench, tmp_path) -> None:
    devices = enrolled(bench, 3)
    for device in devices:
        report(bench, device, samples())
    registry = TaskRegistry(bench.journal.engine)
    registry.publish(awaiting_bundle(tmp_path / "again"))
    bench.make_versions()
    assert scale_of(bench).awaited
    assert scale_made(bench.journal.engine, TASK) == b""
