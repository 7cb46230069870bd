"""`tasks diagnose` over a journal, and the warning of `tasks publish`: figures as by hand from what was sent."""

import json

import numpy as np
import pytest

from broker_coordinator import cli
from broker_coordinator.commands.diagnose import diagnosis
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.codec import decode_update
from fleet_protocol.keys import KeyRing
from fleet_protocol.robust_plan import RobustPlan
from tests.support.bench import KEY, Bench
from tests.support.bundles import TASK, write_bundle
from tests.support.commands import command, configuration_of
from tests.support.device import TINY_SHAPES, SigningDevice, packed_delta
from tests.support.hidden_devices import hiding_bundle

KEYS: KeyRing = (KEY,)
DEVICES = [SigningDevice(f"pi-{number}") for number in range(4)]
SENT = {"pi-0": 4, "pi-1": 5, "pi-2": 7}
"""Updates of each; pi-3 sends none."""


def seed(device: str, sequence: int) -> int:
    return 100 * int(device[-1]) + sequence


@pytest.fixture
def bench(tmp_path, database) -> Bench:
    plan = AggregationPlan(buffer_size=4, norm_quantile_factor=1e6)
    bench = Bench(database, write_bundle(tmp_path / "bundle", aggregation=plan))
    for device in DEVICES:
        bench.handle(device, device.enrolment())
        for sequence in range(1, 1 + SENT.get(device.name, 0)):
            bench.handle(device, device.update(sequence, packed=packed_delta(seed(device.name, sequence))))
    bench.make_versions()
    return bench


def test_dissimilarity_is_that_of_the_mean_of_each_device(bench) -> None:
    means = []
    for name, count in SENT.items():
        dense = np.zeros((count, 36))
        for row in range(count):
            update = decode_update(packed_delta(seed(name, row + 1)), TINY_SHAPES)
            dense[row, update.indices] = update.values
        means.append(dense.mean(axis=0))
    together = np.square(np.mean(means, axis=0)).sum()
    b_squared = np.mean([np.square(each).sum() for each in means]) / together
    found = diagnosis(bench.journal, TASK, KEYS)
    assert found["dissimilarity"]["devices"] == 3
    assert found["dissimilarity"]["b_squared"] == pytest.approx(b_squared, rel=1e-6)
    assert found["participation"] == {
        "devices": 4,
        "silent": 1,
        "gini": pytest.approx(((-3) * 0 + (-1) * 4 + 1 * 5 + 3 * 7) / (4 * 16)),
        "busiest_share": 7 / 16,
    }
    assert (found["looked_at"], found["shortened"]) == (16, 0.0)
    assert found["staleness"]["largest"] == 3
    assert found["bytes"]["largest"] > found["bytes"]["median"] / 2 > 0


def test_updates_of_an_earlier_bundle_and_devices_that_may_not_take_part_do_not_count(bench, tmp_path, capsys) -> None:
    command(bench, tmp_path, capsys, "devices", "revoke", "pi-2")
    assert diagnosis(bench.journal, TASK, KEYS)["participation"]["devices"] == 3
    write_bundle(tmp_path / "other", aggregation=AggregationPlan(buffer_size=5))
    command(bench, tmp_path, capsys, "tasks", "publish", str(tmp_path / "other"))
    found = diagnosis(bench.journal, TASK, KEYS)
    assert (found["looked_at"], found["participation"], found["staleness"]) == (0, {}, {})
    assert "fewer than 3 devices" in found["dissimilarity"]


def test_what_a_task_hides_is_not_told(tmp_path, database) -> None:
    bench = Bench(database, hiding_bundle(tmp_path / "bundle"))
    assert "[privacy.devices]" in diagnosis(bench.journal, TASK, KEYS)["dissimilarity"]


def test_envelopes_that_are_dropped_or_damaged_are_left_out(bench) -> None:
    with bench.journal.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE payloads SET envelope = NULL WHERE device = 'pi-1' AND sequence = 1")
    assert diagnosis(bench.journal, TASK, KEYS)["dissimilarity"]["devices"] == 3
    with bench.journal.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE payloads SET envelope = NULL WHERE device = 'pi-0'")
    assert "fewer than 3 devices" in diagnosis(bench.journal, TASK, KEYS)["dissimilarity"]


def test_command_says_it_for_people_and_as_json(bench, tmp_path, capsys) -> None:
    words = ["tasks", "--config", str(configuration_of(bench, tmp_path)), "diagnose", TASK]
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    assert "participation" in told
    assert "no samples to compare yet" in told
    assert command(bench, tmp_path, capsys, "tasks", "diagnose", TASK)["participation"]["silent"] == 1
    words[-1] = "tulips"
    assert cli.main(words) == 2
    assert "serves no task 'tulips'" in capsys.readouterr().err


def test_plan_that_does_not_suit_the_fleet_is_warned_of_and_published(bench, tmp_path, capsys) -> None:
    write_bundle(tmp_path / "other", task="roses", aggregation=AggregationPlan(buffer_size=30))
    configuration = str(configuration_of(bench, tmp_path))
    assert cli.main(["tasks", "--config", configuration, "publish", str(tmp_path / "other"), "--json"]) == 0
    told = capsys.readouterr()
    assert "warning: roses: buffer_size 30 is more than all devices, which are 4" in told.err
    assert json.loads(told.out)[0]["task"] == "roses"


def test_trusted_device_that_is_not_approved_is_warned_of(bench, tmp_path, capsys) -> None:
    plan = AggregationPlan(robust=RobustPlan("zeno", trusted_devices=("nobody-pi",)))
    write_bundle(tmp_path / "other", task="roses", aggregation=plan)
    configuration = str(configuration_of(bench, tmp_path))
    assert cli.main(["tasks", "--config", configuration, "publish", str(tmp_path / "other"), "--json"]) == 0
    assert (
        "warning: roses: aggregation.robust.trusted_devices names 'nobody-pi', which is not" in capsys.readouterr().err
    )
    found = command(bench, tmp_path, capsys, "tasks", "diagnose", "roses")
    assert any("'nobody-pi', which is not approved" in word for word in found["advice"])


def test_silent_trusted_device_is_said_as_soon_as_no_version_can_be_judged(tmp_path, capsys) -> None:
    """And not before: what it sent last judges for `max_staleness` versions."""
    plan = AggregationPlan(
        buffer_size=1, max_staleness=2, robust=RobustPlan("fltrust", trusted_devices=(DEVICES[0].name,))
    )
    bench = Bench(tmp_path / "trusting.db", write_bundle(tmp_path / "trusting", aggregation=plan))

    def turn(device: SigningDevice, sequence: int) -> list[str]:
        base = bench.journal.newest_number(TASK)
        bench.handle(device, device.update(sequence, base_version=base))
        bench.make_versions()
        return diagnosis(bench.journal, TASK, KEYS)["advice"]

    for device in DEVICES:
        bench.handle(device, device.enrolment())
    assert not any("trusted_devices" in words for words in diagnosis(bench.journal, TASK, KEYS)["advice"])
    said = [turn(DEVICES[1], 1), turn(DEVICES[0], 1), *(turn(DEVICES[1], number) for number in (2, 3))]
    is_said = [any("has nothing to judge by" in words for words in each) for each in said]
    assert is_said == [True, False, False, True]
