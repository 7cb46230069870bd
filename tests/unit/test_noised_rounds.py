"""A device in cohorts with noise: which it joins, what its error feedback keeps, and how many updates it makes."""

import msgspec
import numpy as np
import pytest

from edge_agent.core.device_budget import Sent, one_more, why_no_more, with_lost
from edge_agent.core.privacy_settings import PrivacySettings
from edge_agent.training.compression import remember
from edge_agent.training.masked_update import checked_cohort, masked, masked_result
from edge_agent.worker.contract import JoinedCohort, Returned
from fleet_protocol.bundle import parse_description
from fleet_protocol.errors import ConfigurationError, ProtocolError, Reason
from fleet_protocol.kinds import encode_payload
from fleet_protocol.privacy.noise_shares import NoiseShares, epsilon_told
from fleet_protocol.sending_plan import SendingPlan
from secure_aggregation.field import Field
from secure_aggregation.signatures import signed
from tests.support.masked_cohort import key_of, manifest_of
from tests.support.masked_task import MaskHelperOnDisk, masked_bundle

NOISE = NoiseShares(epsilon=8.0, norm=0.5, at_most=3)
PARAMETERS = 36
UNDEMANDING = PrivacySettings()
CLIP, BITS = 0.25, 12
STEP = Field(CLIP, BITS, 5).step


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("helpers")
    helpers = [MaskHelperOnDisk(f"mask-{number}", folder) for number in range(4)]
    return masked_bundle(
        folder / "bundle", helpers, 5, colluding=2, fewest_devices=4, noise=NOISE, clip=CLIP
    ).description


def joined(task, **fields):
    keys = tuple(bytes.fromhex(key) for key in task.masks.helpers.values())
    promised = {
        "task": task.task, "helpers": keys, "colluding": 2, "parameters": PARAMETERS, "entries": PARAMETERS,
        "clip": CLIP, "bits": BITS, "weights": (1,), "fewest_devices": 4, "fewest_per_weight": 4, "most_devices": 5,
        "deviation": task.masks.deviation,
    }  # fmt: skip
    manifest = manifest_of(**(promised | fields))
    coordinator = key_of("coordinator")
    message = encode_payload(signed(coordinator, manifest))
    return JoinedCohort(message, bytes(coordinator.verify_key), "pi", 7, 3, 0, list(keys), 2, 1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"deviation": 0}, "has deviation 0"),
        ({"fewest_devices": 3, "fewest_per_weight": 3}, "has fewest_devices 3"),
        ({"fewest_per_weight": 3}, "has fewest_per_weight 3"),
        ({"positions": "random", "entries": 7}, "has entries 7"),
        ({"colluding": 1}, "has colluding 1"),
        ({"clip": 0.5}, "has clip 0.5"),
        ({"bits": 8}, "has bits 8"),
        ({"positions": "random", "entries": 9}, "has entries 9"),
    ],
)
def test_cohort_with_less_than_its_task_promises_is_not_joined(task, fields, words):
    assert checked_cohort(joined(task), task).noised == task.masks.noised_updates(PARAMETERS)
    with pytest.raises(ProtocolError, match=words) as refusal:
        checked_cohort(joined(task, **fields), task)
    assert refusal.value.reason == Reason.OUT_OF_BOUNDS


def test_noise_and_what_is_too_long_are_not_in_the_residual_and_rounding_is(task):
    cohort = checked_cohort(joined(task), task)
    generator = np.random.default_rng(5)
    for length in (0.3, 4.0):
        memory = remember(task, b"", (), 1)
        delta = generator.normal(size=PARAMETERS).astype(np.float32)
        delta *= np.float32(length / np.linalg.norm(delta))
        made, forgotten = masked(delta, memory, cohort, generator.bytes)
        residual = np.frombuffer(memory.state(), np.float32)
        assert forgotten == pytest.approx(max(0.0, length - NOISE.norm), rel=1e-3)
        assert np.linalg.norm(made.sent.values) <= np.sqrt(cohort.noised.largest_square) * STEP * (1 + 1e-6)
        kept = delta * np.float32(made.scale) - made.sent.values
        np.testing.assert_allclose(residual, kept, atol=1e-6)
        rounding = np.abs(residual[np.abs(delta * made.scale) < CLIP])
        assert rounding.max() <= STEP * 1.01, "a residual of noise would be some deviations long"
        noise = made.levels - np.rint(made.sent.values / STEP)
        assert noise.std() > task.masks.deviation / 2 > 2


def test_same_round_twice_has_noise_of_its_own_each_time(task):
    cohort = checked_cohort(joined(task), task)
    delta = np.zeros(PARAMETERS, np.float32)
    draws = np.random.default_rng(6).bytes
    first, second = (masked(delta, remember(task, b"", (), 1), cohort, draws)[0].levels for _ in range(2))
    assert not np.array_equal(first, second)
    assert (first - second).std() > task.masks.deviation


def test_void_cohorts_update_comes_back_without_its_noise(task):
    cohort = checked_cohort(joined(task), task)
    memory = remember(task, b"", (), 1)
    delta = np.linspace(-0.1, 0.1, PARAMETERS, dtype=np.float32)
    result = masked_result(delta, memory, cohort, np.random.default_rng(7).bytes)
    again = remember(task, memory.state(), [Returned(b"", plain=result.plain)], 1)
    scale = min(1.0, 0.5 / float(np.linalg.norm(delta)))
    offered = again.offer(np.zeros(PARAMETERS, np.float32))
    np.testing.assert_allclose(offered, delta * np.float32(scale), atol=1e-6)


def budget(task, sent, owner=UNDEMANDING):
    one = one_more("b1", task.masks.noised_updates(PARAMETERS))
    return why_no_more(task.masks.noise, one, sent, owner)


def test_updates_of_a_bundle_are_counted_and_those_of_others_not_for_it(task):
    one = one_more("b1", task.masks.noised_updates(PARAMETERS))
    assert budget(task, []) is None
    assert budget(task, [Sent("b1", one.noise, 2), Sent("b0", one.noise, 40)]) is None
    assert "3 updates of this device were made for this bundle" in budget(task, [Sent("b1", one.noise, 3)])
    assert "at_most = 3" in budget(task, [Sent("b1", 1.0, 1), Sent("b1", one.noise, 2)])


def test_owners_epsilon_is_of_all_bundles_together(task):
    one = one_more("b1", task.masks.noised_updates(PARAMETERS))
    others = [Sent("b0", one.noise, 2)]
    told = epsilon_told([others[0].taken, one.taken], 1e-5)
    assert budget(task, others, owner(task, device_epsilon=told)) is None
    words = budget(task, others, owner(task, device_epsilon=told * 0.999))
    assert "device_epsilon in [privacy] of agent.toml" in words
    assert budget(task, others, owner(task, device_epsilon=told, delta=1e-7)) is not None


def test_what_damage_has_taken_counts_for_the_bundle_at_hand(task):
    one = one_more("b1", task.masks.noised_updates(PARAMETERS))
    assert with_lost([], 0, one) == []
    assert budget(task, with_lost([Sent("b1", one.noise, 1)], 2, one)) is not None


def owner(task, **changes):
    usual = {"at_least": "noised masks", "trusted_mask_helpers": list(task.masks.helpers.values()), "fewest_devices": 4}
    return PrivacySettings(**(usual | changes))


def without_noise(task):
    privacy = msgspec.structs.replace(task.privacy, masks=msgspec.structs.replace(task.masks, noise=None))
    return msgspec.structs.replace(task, privacy=privacy)


def test_owner_may_demand_noise(task):
    assert owner(task).refusal(task) is None
    assert "has no [privacy.masks.noise]" in owner(task).refusal(without_noise(task))
    assert owner(task, at_least="masks").refusal(without_noise(task)) is None
    assert "has no [privacy.samples]" in owner(task, at_least="samples and noised masks").refusal(task)
    assert "has no [privacy.masks]" in owner(task).refusal(msgspec.structs.replace(task, privacy=None))


@pytest.mark.parametrize(
    ("fields", "noise", "words"),
    [
        ({}, {"deviation": 0}, "export again"),
        ({}, {"deviation": 1}, "promises epsilon 8"),
        ({}, {"epsilon": 1.0}, "promises epsilon 1"),
        ({}, {"dishonest": 0.5}, "on each of 2 devices keeps"),
        ({}, {"at_most": 4}, "promises epsilon 8"),
        ({"training": {"validation_share": 0.2}}, {}, "needs training.validation_share = 0"),
        ({"sending": SendingPlan("relevant", 0.5)}, {}, "needs every round sent"),
    ],
)
def test_bundle_whose_noise_does_not_keep_its_promise_is_refused(task, fields, noise, words):
    masks = msgspec.structs.replace(task.masks, noise=msgspec.structs.replace(task.masks.noise, **noise))
    changed = {"privacy": msgspec.structs.replace(task.privacy, masks=masks)}
    for name, value in fields.items():
        changed[name] = msgspec.structs.replace(getattr(task, name), **value) if isinstance(value, dict) else value
    with pytest.raises(ConfigurationError, match=r"\[privacy\.masks\.noise\]") as caught:
        parse_description(msgspec.json.encode(msgspec.structs.replace(task, **changed)))
    assert words in str(caught.value)


def test_levels_as_coarse_as_the_update_are_refused(task):
    noise = msgspec.structs.replace(task.masks.noise, norm=2 * STEP)
    masks = msgspec.structs.replace(task.masks, noise=noise)
    changed = msgspec.structs.replace(task, privacy=msgspec.structs.replace(task.privacy, masks=masks))
    with pytest.raises(ConfigurationError, match="raise bits or norm"):
        parse_description(msgspec.json.encode(changed))


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"at_least": "masks", "device_epsilon": 1.0}, "noised masks"),
        ({"at_least": "samples and masks", "device_epsilon": 1.0}, "noised masks"),
        ({"at_least": "nothing"}, "masks"),
        ({"at_least": "noised masks", "epsilon": 1.0}, "samples"),
        ({"at_least": "masks", "samples_alone": True}, "samples"),
    ],
)
def test_limit_without_the_demand_that_it_is_a_part_of_is_refused(task, fields, part):
    with pytest.raises(ValueError, match=f"lets tasks train without what it is for; write an at_least with '{part}'"):
        owner(task, **fields)
