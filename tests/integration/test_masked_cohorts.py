"""A coordinator's cohorts of masked updates, on its database: what is summed, what is void, and kills in between."""

from functools import partial

import msgspec
import numpy as np
import pytest
from sqlalchemy import select, update

from broker_coordinator.aggregation.retention import Retention
from broker_coordinator.commands.privacy_told import noise_shares_told
from broker_coordinator.consumers.mask_reply import REPLIES_AT_ONCE
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.storage.cohort_registry import CohortRegistry, CohortState
from broker_coordinator.storage.database import reading, writing
from broker_coordinator.storage.schema import cohorts, payloads
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import (
    MASK_REPLY,
    MaskReply,
    Outcome,
    Signed,
    decode_payload,
    encode_payload,
)
from fleet_protocol.privacy.noise_shares import NoiseShares
from secure_aggregation.field import Field
from secure_aggregation.messages import CohortManifest
from secure_aggregation.positions import top_indices
from secure_aggregation.signatures import read_unverified
from session_relay.helper.mask_claims import MaskClaims
from tests.support.bundles import TASK, write_bundle
from tests.support.cohort_fleet import CohortFleet, mean_of
from tests.support.masked_task import masked_bundle
from tests.support.replay import versions_replayed

PLANS = [(3, 2), (3, 1), (4, 1)]
"""Simple mode, and replicated; the last bears one dead helper."""


@pytest.mark.parametrize(("helpers", "colluding"), PLANS)
def test_version_is_the_plain_mean_and_the_journal_holds_nothing_unmasked(tmp_path, helpers, colluding):
    fleet = CohortFleet(tmp_path, helpers, colluding)
    before = fleet.weights()
    fleet.send(fleet.devices)
    assert {fleet.outcome(device) for device in fleet.devices} == {Reason.AWAITS_COHORT}
    fleet.settle()
    assert fleet.version == 1
    moved = before + mean_of(fleet.devices, 3)
    np.testing.assert_allclose(fleet.weights(), moved, atol=2e-6)
    assert {fleet.outcome(device) for device in fleet.devices} == {Outcome.ACCEPTED}
    assert versions_replayed(fleet.bench.journal, TASK) == 1
    files = b"".join(path.read_bytes() for path in tmp_path.glob("one.db*"))
    for device in fleet.devices:
        levels = device.made.levels
        assert device.made.update.values in files
        for plain in (levels.astype("<u2"), levels.astype("<u4"), device.made.sent.values):
            assert plain.tobytes() not in files


def test_version_with_noise_is_the_mean_of_noised_levels_and_is_replayed(tmp_path):
    noise = NoiseShares(epsilon=8.0, norm=0.5, at_most=2)
    fleet = CohortFleet(tmp_path, noise=noise)
    plan = fleet.bench.description.masks
    for device in fleet.devices:
        device.noised = plan.noised_updates(36)
    for number in (1, 2):
        before = fleet.weights()
        fleet.send(fleet.devices, sequence=number)
        fleet.settle()
        assert fleet.version == number
        levels = sum(device.made.levels for device in fleet.devices)
        plain = sum(device.made.sent.values for device in fleet.devices)
        step = Field(0.5, 12, 3).step
        assert np.linalg.norm(levels * step - plain) > 3 * plan.deviation * step, "there is noise in it"
        np.testing.assert_allclose(fleet.weights(), before + (levels * (step / 3)).astype(np.float32), atol=2e-5)
    assert versions_replayed(fleet.bench.journal, TASK) == 2
    told = noise_shares_told(fleet.bench.journal.overview, fleet.bench.description)["noise_shares"]
    assert told["most_updates_of_a_device"] == 2
    assert told["devices_counted_on"] == 2
    assert 0.95 * 8.0 < told["epsilon"] <= told["promised_epsilon"] == 8.0


def test_half_of_the_entries_travel_the_same_for_all_and_others_in_the_next_cohort(tmp_path):
    fleet = CohortFleet(tmp_path, keep_fraction=0.5)
    moved = []
    for number in (1, 2):
        before = fleet.weights()
        fleet.send(fleet.devices, sequence=number)
        fleet.settle()
        assert fleet.version == number
        positions = fleet.devices[0].made.sent.indices
        expected = before.copy()
        expected[positions] += mean_of(fleet.devices, 3)
        np.testing.assert_allclose(fleet.weights(), expected, atol=2e-6)
        moved.append(tuple(positions))
    assert len(moved[0]) == len(moved[1]) == before.size // 2
    assert moved[0] != moved[1]


def test_half_of_what_travels_is_where_the_last_versions_moved_most_also_after_kills(tmp_path):
    fleet = CohortFleet(tmp_path, keep_fraction=0.5, positions="momentum")
    movement = np.zeros(36, np.float32)
    for number in range(1, 4):
        manifest = read_unverified(decode_payload(fleet.cohort, Signed), CohortManifest)
        largest = np.sort(np.argsort(-np.abs(movement), kind="stable")[:9]) if movement.any() else []
        assert top_indices(manifest).tolist() == list(largest)
        before = fleet.weights()
        fleet.send(fleet.devices, sequence=number)
        fleet.bench.restart()
        fleet.settle()
        assert fleet.version == number
        positions = fleet.devices[0].made.sent.indices
        assert set(largest) <= set(positions.tolist())
        assert positions.size == 18
        expected = before.copy()
        expected[positions] += mean_of(fleet.devices, 3)
        np.testing.assert_allclose(fleet.weights(), expected, atol=2e-6)
        movement = (
            fleet.bench.journal.newest_version(TASK).state(fleet.bench.description.version.parameters, {}).moments[0]
        )
    assert versions_replayed(fleet.bench.journal, TASK) == 3


def weighted_mean_of(weights):
    field = Field(0.5, 12, 4)
    total = sum(weight * device.made.levels for device, weight in weights.items())
    return (total * (field.step / sum(weights.values()))).astype(np.float32)


@pytest.mark.parametrize(("helpers", "colluding"), PLANS)
def test_stale_updates_weigh_less_where_enough_devices_share_the_weight(tmp_path, helpers, colluding):
    rule = AggregationPlan(buffer_size=4, averaged_versions=1, staleness_weighting="polynomial")
    fleet = CohortFleet(tmp_path, helpers, colluding, devices=4, aggregation=rule)
    first, second, third, fourth = fleet.devices
    stale_and_weights = [
        ((), dict.fromkeys(fleet.devices, 4)),
        ((third, fourth), {first: 4, second: 4, third: 3, fourth: 3}),
        ((fourth,), dict.fromkeys(fleet.devices, 4)),
        (fleet.devices, dict.fromkeys(fleet.devices, 3)),
    ]
    for number, (stale, weights) in enumerate(stale_and_weights, 1):
        before, newest = fleet.weights(), fleet.version
        fleet.send([device for device in fleet.devices if device not in stale], sequence=number)
        fleet.version = newest - 1
        fleet.send(stale, sequence=number)
        fleet.bench.restart()
        fleet.settle()
        assert fleet.version == number
        np.testing.assert_allclose(fleet.weights(), before + weighted_mean_of(weights), atol=2e-6)
        _, summed = CohortRegistry(fleet.bench.journal.engine).last(TASK, 2)
        told = {member.device: member.weight for member in summed.members[1].members}
        assert told == {device.name: weight for device, weight in weights.items()}
    assert versions_replayed(fleet.bench.journal, TASK) == 4


def published_anew(fleet, folder, **plan):
    other = masked_bundle(folder / "other", list(fleet.helpers.values()), 3, colluding=2, **plan)
    TaskRegistry(fleet.bench.journal.engine).publish(other)


def published_without_masks(fleet, folder):
    TaskRegistry(fleet.bench.journal.engine).publish(write_bundle(folder / "plain"))


def renewed(fleet, _folder):
    TaskRegistry(fleet.bench.journal.engine).renew(TASK)


@pytest.mark.parametrize("change", [partial(published_anew, clip=0.25), published_without_masks, renewed])
def test_devices_are_told_at_once_that_a_task_that_changed_has_made_their_cohort_void(tmp_path, change):
    fleet = CohortFleet(tmp_path)
    fleet.send(fleet.devices[:2])
    change(fleet, tmp_path)
    fleet.settle()
    assert CohortState.VOID in fleet.states()
    assert {fleet.outcome(device) for device in fleet.devices[:2]} == {Reason.VOID_COHORT}
    fleet.receipts.clear()
    for device, message in zip(fleet.devices[:2], fleet.envelopes, strict=True):
        fleet.bench.handle(device, message)  # as a device does that has not heard it
    fleet.turn(0.0)
    assert {fleet.outcome(device) for device in fleet.devices[:2]} == {Reason.VOID_COHORT}


def test_wait_of_a_cohort_goes_on_where_it_was_when_the_coordinator_starts_again(tmp_path):
    fleet = CohortFleet(tmp_path, wait_seconds=3600.0)
    fleet.send(fleet.devices[:2])
    fleet.settle(3, 100.0)
    with writing(fleet.bench.journal.engine) as connection:  # as if it had been opened an hour before it is killed
        connection.execute(update(cohorts).values(opened=cohorts.c.opened - 3600))
    fleet.bench.restart()
    fleet.turn(1.0)
    assert fleet.states() == [CohortState.OPEN], "what has waited at the broker comes first"
    fleet.settle(8, 4.0)
    assert fleet.version == 1


def test_device_that_spoils_every_sum_stops_nobody_and_is_found(tmp_path, caplog):
    fleet = CohortFleet(tmp_path, 4, 1, devices=6)
    spoiler = fleet.devices[4]
    honest = [device for device in fleet.devices if device is not spoiler]
    spoiler.spoils = True
    number = 0
    while "device_spoils_sums" not in caplog.text:
        number += 1
        assert number < 100, "it is found after log2 of the devices' number of sums"
        fleet.send(fleet.devices, sequence=number)
        fleet.settle()
    assert "device=pi-4" in caplog.text
    before, made = fleet.weights(), fleet.version
    fleet.send(fleet.devices, sequence=number + 1)
    fleet.settle()
    assert fleet.version == made + 1
    np.testing.assert_allclose(fleet.weights(), before + mean_of(honest, 6), atol=2e-6)
    assert fleet.outcome(spoiler) is Reason.VOID_COHORT


def test_one_helper_of_four_may_be_dead(tmp_path):
    fleet = CohortFleet(tmp_path, 4, 1)
    fleet.dead = {"mask-2"}
    fleet.send(fleet.devices)
    fleet.settle(20, 5.0)
    assert fleet.version == 1


def test_cohort_without_enough_helpers_is_void_and_the_next_one_works(tmp_path):
    fleet = CohortFleet(tmp_path, 3, 2, give_up_seconds=100.0)
    fleet.dead = {"mask-2"}
    fleet.send(fleet.devices)
    fleet.settle(30, 5.0)
    assert fleet.version == 0
    assert {fleet.outcome(device) for device in fleet.devices} == {Reason.VOID_COHORT}
    assert fleet.states() == [CohortState.OPEN, CohortState.VOID]
    fleet.dead = set()
    fleet.send(fleet.devices, sequence=2)
    fleet.settle()
    assert fleet.version == 1


def test_least_devices_are_summed_when_the_time_is_over_and_fewer_wait(tmp_path):
    fleet = CohortFleet(tmp_path)
    fleet.send(fleet.devices[:1])
    fleet.settle(20, 10.0)
    assert fleet.version == 0
    fleet.send(fleet.devices[1:2])
    fleet.settle(20, 10.0)
    assert fleet.version == 1


def test_device_that_a_helper_does_not_know_is_left_out_and_takes_its_update_back(tmp_path):
    fleet = CohortFleet(tmp_path)
    fleet.known = fleet.devices[:2]
    before = fleet.weights()
    fleet.send(fleet.devices)
    fleet.settle()
    assert fleet.version == 1
    np.testing.assert_allclose(fleet.weights(), before + mean_of(fleet.devices[:2], 3), atol=2e-6)
    assert [fleet.outcome(device) for device in fleet.devices] == [
        Outcome.ACCEPTED,
        Outcome.ACCEPTED,
        Reason.VOID_COHORT,
    ]


@pytest.mark.parametrize(("helpers", "colluding"), PLANS)
@pytest.mark.parametrize("killed_at", range(7))
def test_kills_of_coordinator_and_helpers_between_steps_lose_and_count_nothing_twice(
    tmp_path, helpers, colluding, killed_at
):
    fleet = CohortFleet(tmp_path, helpers, colluding)
    before = fleet.weights()
    fleet.send(fleet.devices)
    for turn in range(16):
        if turn == killed_at:
            fleet.bench.restart()
            for helper in fleet.helpers.values():
                helper.restart()
        fleet.turn(3.0)
    assert fleet.version == 1
    np.testing.assert_allclose(fleet.weights(), before + mean_of(fleet.devices, 3), atol=2e-6)
    for device, message in zip(fleet.devices, fleet.envelopes, strict=True):
        fleet.bench.handle(device, message)
    fleet.settle(20, 10.0)
    assert {fleet.outcome(device) for device in fleet.devices} == {Outcome.ACCEPTED}
    assert fleet.version == 1
    assert versions_replayed(fleet.bench.journal, TASK) == 1


def test_second_update_of_a_device_and_one_for_another_cohort_are_refused(tmp_path):
    fleet = CohortFleet(tmp_path)
    first = fleet.cohort
    fleet.send(fleet.devices[:1])
    fleet.send(fleet.devices[:1], sequence=2)
    assert fleet.outcome(fleet.devices[0]) is Reason.COHORT_CLOSED
    fleet.send(fleet.devices[1:])
    fleet.settle()
    assert fleet.version == 1
    fleet.cohort = first
    fleet.send(fleet.devices[:1], sequence=3)
    assert fleet.outcome(fleet.devices[0]) is Reason.COHORT_CLOSED


def test_plain_update_is_refused_for_a_task_with_masks(tmp_path):
    fleet = CohortFleet(tmp_path)
    fleet.bench.handle(fleet.devices[0], fleet.devices[0].update(5))
    fleet.turn()
    assert fleet.outcome(fleet.devices[0]) is Reason.MALFORMED


def test_helpers_are_asked_about_one_set_of_each_cohort_and_no_two_share_an_update(tmp_path):
    fleet = CohortFleet(tmp_path, 4, 1)
    for number in range(1, 4):
        fleet.send(fleet.devices, sequence=number)
        fleet.bench.restart()
        fleet.settle(10, 3.0)
    assert fleet.version == 3
    for helper in fleet.helpers.values():
        asked = {
            (each.request.manifest.content, each.request.cohort_set.content)
            for each in helper.heard
            if each.step != "unusable"
        }
        assert len(asked) == len({manifest for manifest, _ in asked}) == 3


def test_masks_and_void_updates_are_forgotten_with_the_envelopes_of_their_time(tmp_path):
    fleet = CohortFleet(tmp_path, retention=Retention(versions=1, every=0, envelopes=2))
    fleet.known = fleet.devices[:2]
    for number in range(1, 7):
        fleet.send(fleet.devices, sequence=number)
        fleet.settle()
    with reading(fleet.bench.journal.engine) as connection:
        summed = select(cohorts.c.version).where(cohorts.c.masks.is_not(None))
        assert {version for (version,) in connection.execute(summed)} == {5, 6}
        kept = select(payloads.c.base_version).where(
            payloads.c.envelope.is_not(None), payloads.c.set_aside.is_not(None)
        )
        assert {version for (version,) in connection.execute(kept)} == {5}, "of the device that no helper knows"
    fleet.receipts.clear()
    fleet.bench.handle(fleet.devices[2], fleet.envelopes[2])
    fleet.turn(0.0)
    assert fleet.outcome(fleet.devices[2]) is Reason.VOID_COHORT, "its outcome stays"
    fleet.bench.restart()
    fleet.send(fleet.devices, sequence=7)
    fleet.settle()
    assert fleet.version == 7


def lone_words(caplog):
    return [each.getMessage() for each in caplog.records if "helper_names_unusable" in each.getMessage()]


def test_helper_that_alone_rules_a_device_out_is_told_to_the_operator_and_more_clearly_the_third_time(tmp_path, caplog):
    fleet = CohortFleet(tmp_path, helpers=4, colluding=1)
    liar = fleet.helpers["mask-2"]
    shipped = liar.reply

    def lying(request, coordinator, devices):
        return shipped(request, coordinator, [each for each in devices if each.name != "pi-1"])

    liar.reply = lying
    for number in (1, 2, 3):
        fleet.send(fleet.devices, sequence=number)
        fleet.settle(10)
        assert fleet.version == number, "the others are summed all the same"
        assert fleet.outcome(fleet.devices[1]) is Reason.VOID_COHORT
    told = lone_words(caplog)
    assert [f"cohorts_in_a_row={number}" in line for number, line in enumerate(told, 1)] == [True] * 3
    assert all("helper=mask-2" in line and "pi-1" in line for line in told)
    assert "have another helper take its place" in told[2]
    assert "have another helper take its place" not in told[1]
    liar.reply = shipped
    fleet.send(fleet.devices, sequence=4)
    fleet.settle(10)
    liar.reply = lying
    fleet.send(fleet.devices, sequence=5)
    fleet.settle(10)
    assert "cohorts_in_a_row=1 " in lone_words(caplog)[3], "its row had ended"


def test_helper_that_floods_is_refused_beyond_its_share_and_its_words_count_once(tmp_path, caplog):
    metrics = Metrics()
    fleet = CohortFleet(tmp_path, helpers=4, colluding=1, metrics=metrics)

    def handled(outcome, reason=""):
        labels = {"outcome": outcome, "reason": reason}
        return metrics.registry.get_sample_value("edgeflock_messages_total", labels) or 0

    flooding = fleet.helpers["mask-0"]
    shipped = flooding.reply

    def flood(request, coordinator, devices):
        reply = shipped(request, coordinator, devices)
        refused = msgspec.structs.replace(reply, refusal="no", unusable=(), signed=())
        for number in range(100):
            other = msgspec.structs.replace(refused, refusal=f"no {number}")
            fleet.sequence += 1
            fleet.bench.handle(flooding.member, flooding.sent(other, fleet.sequence))
        return refused

    flooding.reply = flood
    rows = len(fleet.journal_rows())
    fleet.send(fleet.devices)
    fleet.settle()
    assert fleet.version == 1
    assert handled("mask_replied") <= 4 * REPLIES_AT_ONCE
    assert handled("refused", "rate_limited") >= 80
    assert len(fleet.journal_rows()) == rows + len(fleet.devices), "nothing of a reply is kept"
    told = [each.getMessage() for each in caplog.records if "mask_helper_refused" in each.getMessage()]
    assert len(told) <= 3, "once for each step"


@pytest.mark.parametrize(("helpers", "colluding", "version"), [(3, 2, 0), (4, 1, 1)])
def test_helper_whose_key_changed_speaks_for_no_cohort_and_says_so(tmp_path, caplog, helpers, colluding, version):
    """Its claims were lost. In the simple mode nothing is summed; three of four go on without it."""
    fleet = CohortFleet(tmp_path, helpers, colluding)
    fleet.helpers["mask-1"].claims.close()
    fleet.helpers["mask-1"].claims = MaskClaims(tmp_path / "new-claims.db")
    fleet.send(fleet.devices)
    fleet.settle()
    assert fleet.version == version
    assert (CohortState.VOID in fleet.states()) == (not version)
    told = next(each.getMessage() for each in caplog.records if "mask_helper_refused" in each.getMessage())
    assert "helper=mask-1" in told
    assert "has no mask helper with the key" in told
    outcome = Outcome.ACCEPTED if version else Reason.VOID_COHORT
    assert {fleet.outcome(device) for device in fleet.devices} == {outcome}


def test_reply_of_a_device_that_is_no_mask_helper_is_refused_and_counted(tmp_path):
    metrics = Metrics()
    fleet = CohortFleet(tmp_path, metrics=metrics)
    fleet.send(fleet.devices)
    reply = MaskReply("unusable", bytes(32), unusable=tuple(device.name for device in fleet.devices[1:]))
    stranger = fleet.devices[0]
    fleet.bench.handle(stranger, stranger.sign(MASK_REPLY, encode_payload(reply), sequence=99))
    refused = {"outcome": "refused", "reason": "unknown_task"}
    assert metrics.registry.get_sample_value("edgeflock_messages_total", refused) == 1
    fleet.settle()
    assert fleet.version == 1
