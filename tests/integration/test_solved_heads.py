"""Heads solved from feature statistics, with a real database: later ones replace, restarts, rollbacks, forgetting."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import FEATURE_STATISTICS, FeatureStatistics, Outcome, encode_payload
from fleet_protocol.solved_head import SolvedHead
from tests.support.bench import KEY, OPEN, Bench
from tests.support.bundles import TASK, write_bundle
from tests.support.commands import command
from tests.support.device import SigningDevice
from tests.support.replay import versions_replayed
from tests.support.solved_heads import Featured, fleet, head_of, pooled_ridge

DEVICES = [SigningDevice(f"pi-{number}") for number in range(4)]
SAMPLES = list(fleet(11, 4, classes_each=2))
LATER = list(fleet(12, 4, classes_each=3))
EXACT = SolvedHead(precision="float64", most_times_median=0.0)


def bench_of(folder: Path, plan: SolvedHead = EXACT, *, buffer_size: int = 2, name: str = "one") -> Bench:
    aggregation = AggregationPlan(buffer_size=buffer_size, max_staleness=2, averaged_versions=1)
    bundle = write_bundle(folder / "bundle", aggregation=aggregation, solved_head=plan)
    bench = Bench(folder / f"{name}.db", bundle, replace(OPEN, keys=(KEY,)))
    for device in DEVICES:
        bench.handle(device, device.enrolment())
    bench.said()
    return bench


def send(bench: Bench, place: int, samples: Featured, sequence: int, plan: SolvedHead = EXACT) -> None:
    bench.handle(DEVICES[place], samples.message(DEVICES[place], sequence, 4, plan))
    bench.make_versions()


def weights(bench: Bench) -> np.ndarray:
    version = bench.journal.newest_version(TASK)
    return version.state(bench.description.parameters, {}).weights


def refusal_of(bench: Bench, device: SigningDevice, message: bytes) -> tuple[str, str]:
    bench.said()
    bench.handle(device, message)
    (receipt,) = bench.receipts()
    assert receipt.outcome is Outcome.REJECTED
    return receipt.reason, receipt.detail


@pytest.mark.parametrize("restarts", [False, True])
def test_newest_statistics_of_every_device_make_the_head_whatever_was_restarted_and_when(tmp_path, restarts):
    bench = bench_of(tmp_path)
    messages = [(place, SAMPLES[place], 1) for place in range(4)] + [(1, LATER[1], 2), (3, LATER[3], 2)]
    for place, samples, sequence in messages:
        send(bench, place, samples, sequence)
        if restarts:
            bench.restart()
    expected = head_of([SAMPLES[0], LATER[1], SAMPLES[2], LATER[3]], EXACT).flat()
    assert bench.journal.newest_number(TASK) == 3
    assert weights(bench).tobytes() == expected.tobytes()
    assert versions_replayed(bench.journal, TASK) == 3


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)])
def test_head_is_pooled_ridge_in_any_order_without_staleness(tmp_path, order):
    """Every message is made from version 0, and `max_staleness` is 2."""
    bench = bench_of(tmp_path, buffer_size=1)
    for place in order:
        send(bench, place, SAMPLES[place], 1)
    pooled = pooled_ridge(SAMPLES, 1.0)
    expected = np.concatenate([pooled[:, :-1].ravel(), pooled[:, -1]])
    assert bench.journal.newest_number(TASK) == 4
    np.testing.assert_allclose(weights(bench), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("solver", ["ridge", "means", "gaussian"])
def test_forgotten_device_leaves_the_head_that_would_be_had_it_never_sent(tmp_path, capsys, solver):
    plan = SolvedHead(solver=solver, draws=5) if solver == "gaussian" else SolvedHead(solver=solver)
    bench = bench_of(tmp_path, plan, buffer_size=1)
    for place in range(4):
        send(bench, place, SAMPLES[place], 1, plan)
    send(bench, 0, LATER[0], 2, plan)
    send(bench, 2, LATER[2], 2, plan)
    (row,) = forget(bench, tmp_path, "pi-2", capsys)
    assert (row["version"], row["remains"]) == (7, "")
    bench.make_versions()
    without = {"pi-0": LATER[0], "pi-1": SAMPLES[1], "pi-3": SAMPLES[3]}
    assert weights(bench).tobytes() == head_of_named(without, plan).tobytes()
    bench.restart()
    send(bench, 3, LATER[3], 2, plan)
    by_hand = {"pi-0": LATER[0], "pi-1": SAMPLES[1], "pi-3": LATER[3]}
    assert weights(bench).tobytes() == head_of_named(by_hand, plan).tobytes(), "it stays forgotten"
    assert versions_replayed(bench.journal, TASK) == 8
    send(bench, 2, SAMPLES[2], 3, plan)
    with_2 = head_of_named({**by_hand, "pi-2": SAMPLES[2]}, plan)
    assert weights(bench).tobytes() == with_2.tobytes(), "until it sends again"
    assert versions_replayed(bench.journal, TASK) == 9


def test_device_that_never_enrolled_can_not_be_forgotten(tmp_path, capsys):
    bench = bench_of(tmp_path)
    with pytest.raises(AssertionError, match="there is no device 'pi-9'"):
        forget(bench, tmp_path, "pi-9", capsys)


def forget(bench: Bench, folder: Path, device: str, capsys) -> list[dict]:
    """What `devices forget` says in JSON."""
    return list(command(bench, folder, capsys, "devices", "forget", device))


def head_of_named(samples: dict[str, Featured], plan: SolvedHead) -> np.ndarray:
    return head_of([samples[name] for name in sorted(samples)], plan).flat()


def test_version_is_made_of_what_came_once_it_has_waited_long_enough(tmp_path):
    bench = bench_of(tmp_path, buffer_size=4)
    send(bench, 0, SAMPLES[0], 1)
    assert bench.journal.newest_number(TASK) == 0
    bench.now += EXACT.longest_wait_seconds
    bench.make_versions()
    assert bench.journal.newest_number(TASK) == 1
    assert weights(bench).tobytes() == head_of(SAMPLES[:1], EXACT).flat().tobytes()


def test_statistics_that_come_after_newer_ones_of_their_device_are_refused(tmp_path):
    bench = bench_of(tmp_path)
    send(bench, 0, LATER[0], 2)
    bench.restart()
    reason, detail = refusal_of(bench, DEVICES[0], SAMPLES[0].message(DEVICES[0], 1, 4, EXACT))
    assert (reason, detail) == (Reason.TOO_STALE, "statistics 1 of pi-0 come after 2, which replace them")


def altered(solver: str, **parts) -> tuple[bytes, SolvedHead]:
    plan = SolvedHead(solver=solver, precision="float64", largest_feature=1.0)
    honest = SAMPLES[1].statistics(4, plan)
    fields = {"counts": honest.counts, "means": honest.means, "spread": honest.spread}
    changed = type(honest)(**{**fields, **{name: change(fields[name]) for name, change in parts.items()}})
    return encode_payload(FeatureStatistics(changed.encode(plan.precision, plan.solver))), plan


def negated(spread):
    return -spread


HOSTILE = {
    "a covariance that is not positive semi-definite": (
        altered("ridge", spread=lambda spread: np.where(np.arange(36) == 1, 10 * spread.max(), spread)),
        "not positive semi-definite",
    ),
    "negative variances": (altered("ridge", spread=negated), "features can have 0 to 1"),
    "negative variances of a class": (altered("gaussian", spread=negated), "features can have 0 to 1"),
    "variances that bounded features can't have": (
        altered("gaussian", spread=lambda spread: 0 * spread + 1.1),
        "features can have 0 to 1",
    ),
    "an absurd covariance": (altered("ridge", spread=lambda spread: 1e30 * spread), "features can have 0 to 1"),
    "absurd means": (altered("means", means=lambda means: 1e30 * means), "features are from -1 to 1"),
    "means beyond the inputs": (altered("means", means=lambda means: means + 2.0), "features are from -1 to 1"),
    "more samples than any device has": (
        altered("means", counts=lambda counts: counts * 10**8),
        "allowed are 1 to 1000000",
    ),
    "a covariance of single samples": (
        altered("ridge", counts=lambda counts: np.minimum(counts, 1)),
        "classes of one sample each have a covariance",
    ),
    "a covariance of more directions than samples": (
        altered("ridge", counts=lambda counts: np.minimum(counts, 1) + (counts == counts.max())),
        "more directions than 3 samples of 2 classes have: 1",
    ),
    "a variance of a single sample": (
        altered("gaussian", counts=lambda counts: np.minimum(counts, 1)),
        "a class of one sample has a variance",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_statistics_that_no_samples_have_are_refused_in_words_and_nobody_else_is_hurt(tmp_path, what):
    (payload, plan), words = HOSTILE[what]
    bench = bench_of(tmp_path, plan, buffer_size=1)
    message = DEVICES[0].sign(FEATURE_STATISTICS, payload, task=TASK)
    reason, detail = refusal_of(bench, DEVICES[0], message)
    assert (reason, words in detail) == (Reason.OUT_OF_BOUNDS, True), detail
    send(bench, 1, SAMPLES[1], 1, plan)
    assert weights(bench).tobytes() == head_of(SAMPLES[1:2], plan).flat().tobytes()


@pytest.mark.parametrize("solver", ["ridge", "gaussian", "means"])
def test_samples_at_the_bounds_are_no_lie_although_float32_rounds_them_outwards(tmp_path, solver):
    plan = SolvedHead(solver=solver, precision="float64", largest_feature=0.1)
    assert float(np.float32(0.1)) > 0.1
    ends = np.repeat(np.array([[-0.1], [0.1]], np.float32), [3, 3], axis=0)
    at_the_ends = Featured(np.hstack([ends] * SAMPLES[0].features.shape[1]), np.array([0, 1, 1, 1, 1, 2]))
    bench = bench_of(tmp_path, plan, buffer_size=1)
    send(bench, 0, at_the_ends, 1, plan)
    assert weights(bench).tobytes() == head_of([at_the_ends], plan).flat().tobytes()


def test_task_without_a_solved_head_takes_no_feature_statistics(tmp_path):
    bench = Bench(tmp_path / "one.db", write_bundle(tmp_path / "bundle"))
    bench.handle(DEVICES[0], DEVICES[0].enrolment())
    reason, detail = refusal_of(bench, DEVICES[0], SAMPLES[0].message(DEVICES[0], 1, 4, EXACT))
    assert (reason, detail) == (Reason.MALFORMED, "versions of tiny are made from update, not from feature statistics")
