"""A coordinator's cohorts of encrypted updates, on its database: sums that only the key holder reads, or nothing."""

import msgspec
import numpy as np
import pytest
from sqlalchemy import select, update

from broker_coordinator.storage.database import reading, writing
from broker_coordinator.storage.schema import cohorts, payloads
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.errors import ConfigurationError, Reason
from fleet_protocol.kinds import MASKED_UPDATE, Outcome, Signed, decode_payload, encode_payload
from fleet_protocol.privacy.encryption_plan import ciphertext_bytes
from fleet_protocol.privacy.noise_shares import NoiseShares
from secure_aggregation.ciphertexts import unpack_ciphertext
from secure_aggregation.messages import CohortSet, EncryptionKey
from secure_aggregation.signatures import read_unverified, signed
from session_relay.helper.mask_claims import MaskClaims
from session_relay.helper.mask_serving import key_holder_of
from tests.support.bench import KEY
from tests.support.bundles import TASK
from tests.support.cohort_fleet import CohortFleet, mean_of
from tests.support.replay import versions_replayed

ALONE = (1, 0)
PLANS = [ALONE, (2, 1), (3, 2)]
"""The key holder is the only helper, or the last of two or three, of which all others may collude."""


def encrypted_fleet(folder, helpers=1, colluding=0, devices=3, **plan):
    return CohortFleet(folder, helpers, colluding, devices, key_holder=f"mask-{helpers - 1}", **plan)


@pytest.mark.parametrize(("helpers", "colluding"), PLANS)
def test_version_is_the_plain_mean_and_nobody_but_devices_has_what_is_in_an_update(tmp_path, helpers, colluding):
    fleet = encrypted_fleet(tmp_path, helpers, colluding)
    before = fleet.weights()
    fleet.send(fleet.devices)
    assert {fleet.outcome(device) for device in fleet.devices} == {Reason.AWAITS_COHORT}
    fleet.settle()
    assert fleet.version == 1
    np.testing.assert_allclose(fleet.weights(), before + mean_of(fleet.devices, 3), atol=2e-6)
    assert {fleet.outcome(device) for device in fleet.devices} == {Outcome.ACCEPTED}
    assert versions_replayed(fleet.bench.journal, TASK) == 1
    asked = [request for helper in fleet.helpers.values() for request in helper.heard]
    assert sum(bool(each.ciphertext) for each in asked) == 1, "the key holder's answer alone needs it"
    shown = encode_payload(asked[-1])
    files = b"".join(path.read_bytes() for path in tmp_path.glob("one.db*"))
    with reading(fleet.bench.journal.engine) as connection:
        kept = b"".join(row.envelope for row in connection.execute(select(payloads.c.envelope)))
    for device in fleet.devices:
        values = device.made.update.values
        assert values in kept
        assert len(values) == ciphertext_bytes(36)
        assert values not in shown, "no single ciphertext comes to a helper"
        levels = device.made.levels
        for plain in (levels.astype("<u2"), levels.astype("<u4"), device.made.sent.values):
            assert plain.tobytes() not in files


def test_weights_noise_and_chosen_positions_go_with_it(tmp_path):
    rule = AggregationPlan(buffer_size=4, averaged_versions=1, staleness_weighting="polynomial")
    fleet = encrypted_fleet(tmp_path / "weighted", devices=4, aggregation=rule, keep_fraction=0.5)
    fleet.send(fleet.devices)
    fleet.settle()
    fleet.send(fleet.devices[:2], sequence=2)
    fleet.version = 0
    fleet.send(fleet.devices[2:], sequence=2)
    fleet.settle()
    assert fleet.version == 2
    assert versions_replayed(fleet.bench.journal, TASK) == 2

    noised = encrypted_fleet(tmp_path / "noised", noise=NoiseShares(epsilon=8.0, norm=0.5, at_most=2))
    for device in noised.devices:
        device.noised = noised.bench.description.masks.noised_updates(36)
    before = noised.weights()
    noised.send(noised.devices)
    noised.settle()
    np.testing.assert_allclose(noised.weights(), before + mean_of(noised.devices, 3), atol=2e-5)


@pytest.mark.parametrize(("helpers", "colluding"), PLANS)
@pytest.mark.parametrize("killed_at", range(6))
def test_kills_of_coordinator_and_key_holder_between_steps_lose_and_count_nothing_twice(
    tmp_path, helpers, colluding, killed_at
):
    fleet = encrypted_fleet(tmp_path, helpers, colluding)
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
    assert versions_replayed(fleet.bench.journal, TASK) == 1
    asked = {each.ciphertext for each in fleet.helpers[f"mask-{helpers - 1}"].heard} - {b""}
    assert len(asked) == 1, "the key holder is shown one ciphertext, however often it is asked"


def test_cohort_whose_key_holder_is_gone_is_void_and_the_next_one_works(tmp_path):
    fleet = encrypted_fleet(tmp_path, give_up_seconds=100.0)
    fleet.dead = {"mask-0"}
    fleet.send(fleet.devices)
    fleet.settle(30, 5.0)
    assert fleet.version == 0
    assert {fleet.outcome(device) for device in fleet.devices} == {Reason.VOID_COHORT}
    fleet.dead = set()
    fleet.send(fleet.devices, sequence=2)
    fleet.settle()
    assert fleet.version == 1


def test_key_holder_that_has_lost_its_key_speaks_for_no_cohort_and_says_so(tmp_path, caplog):
    fleet = encrypted_fleet(tmp_path, 2, 1)
    helper = fleet.helpers["mask-1"]
    others = MaskClaims(tmp_path / "another.db")
    helper.holder = key_holder_of(others)
    fleet.send(fleet.devices)
    fleet.settle()
    assert fleet.version == 0
    assert {fleet.outcome(device) for device in fleet.devices} == {Reason.VOID_COHORT}
    told = next(each.getMessage() for each in caplog.records if "mask_helper_refused" in each.getMessage())
    assert "updates are encrypted under the key" in told
    assert "edgeflock-helper encryption-key" in told


@pytest.mark.parametrize("values", [b"", bytes(100), b"\xff" * ciphertext_bytes(36), bytes(ciphertext_bytes(36) + 1)])
def test_what_is_no_ciphertext_is_refused_and_the_others_are_summed(tmp_path, values):
    fleet = encrypted_fleet(tmp_path)
    liar, honest = fleet.devices[0], fleet.devices[1:]
    liar.masked(fleet.cohort, 1)
    payload = encode_payload(msgspec.structs.replace(liar.made.update, values=values))
    fleet.bench.handle(liar, liar.sign(MASKED_UPDATE, payload, sequence=1, task=TASK, base_version=0))
    fleet.turn(0.0)
    assert fleet.outcome(liar) in {Reason.WRONG_SHAPE, Reason.MALFORMED}
    before = fleet.weights()
    fleet.send(honest)
    fleet.settle(20, 10.0)
    assert fleet.version == 1
    np.testing.assert_allclose(fleet.weights(), before + mean_of(honest, 3), atol=2e-6)


def test_device_that_encrypts_under_another_key_spoils_the_sum_and_is_found(tmp_path, caplog):
    fleet = encrypted_fleet(tmp_path, devices=6)  # whose sums take three quarters of their modulus
    spoiler = fleet.devices[2]
    spoiler.public = public_in(MaskClaims(tmp_path / "another.db").encryption_key()[1])
    for number in range(1, 30):
        fleet.send(fleet.devices, sequence=number)
        fleet.settle()
        if "device_spoils_sums" in caplog.text:
            break
    assert "device=pi-2" in caplog.text


def public_in(file):
    key = read_unverified(decode_payload(file, Signed), EncryptionKey)
    return unpack_ciphertext(key.public, 1).tobytes()


def test_replay_finds_that_the_set_was_of_other_ciphertexts(tmp_path):
    fleet = encrypted_fleet(tmp_path)
    fleet.send(fleet.devices)
    fleet.settle()
    journal = fleet.bench.journal
    assert versions_replayed(journal, TASK) == 1
    summed = cohorts.c.version == 1
    with writing(journal.engine) as connection:
        stored = decode_payload(connection.scalar(select(cohorts.c.members).where(summed)), Signed)
        other = msgspec.structs.replace(read_unverified(stored, CohortSet), ciphertext=bytes(32))
        connection.execute(update(cohorts).where(summed).values(members=encode_payload(signed(KEY, other))))
    with pytest.raises(ConfigurationError, match="version 1 of tiny: the encrypted updates add up to another"):
        versions_replayed(journal, TASK)
