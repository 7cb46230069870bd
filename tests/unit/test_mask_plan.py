"""What contradicts `[privacy.masks]` is refused in words, in tasks and by a device's owner."""

import msgspec
import numpy as np
import pytest

from edge_agent.core.privacy_settings import PrivacySettings
from fleet_protocol.bundle import parse_description
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.parameter import Parameter
from fleet_protocol.privacy.mask_plan import MaskPlan, check_masked_task
from secure_aggregation.manifest import field_of, seed_plan_of
from secure_aggregation.positions import top_positions
from secure_aggregation.seed_plan import SeedPlan
from tests.support.masked_cohort import manifest_of
from tests.support.masked_task import MaskHelperOnDisk, masked_bundle


@pytest.fixture(scope="module")
def helpers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("helpers")
    return [MaskHelperOnDisk(f"mask-{number}", folder) for number in range(4)]


@pytest.fixture(scope="module")
def task(helpers, tmp_path_factory):
    return masked_bundle(tmp_path_factory.mktemp("bundle"), helpers[:3], colluding=2).description


def changed(task, table=None, **fields):
    if table is None:
        return msgspec.structs.replace(task, **fields)
    return msgspec.structs.replace(task, **{table: msgspec.structs.replace(getattr(task, table), **fields)})


def refusal(task):
    with pytest.raises(ConfigurationError) as caught:
        parse_description(msgspec.json.encode(task))
    return str(caught.value)


@pytest.mark.parametrize(
    ("table", "fields", "words"),
    [
        (None, {"versions_from": "update"}, "versions_from is 'update'"),
        (None, {"privacy": None}, "versions_from is 'masked update'"),
        ("aggregation", {"strategy": "base_mean"}, "looks at single updates"),
        ("aggregation", {"buffer_size": None}, "it is left out"),
        ("aggregation", {"buffer_size": 1}, "it is 1"),
        ("update", {"feedback": "momentum"}, "goes with update.feedback 'residual', not 'momentum'"),
    ],
)
def test_task_that_could_not_keep_its_promise_is_refused(task, table, fields, words):
    assert words in refusal(changed(task, table, **fields))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"colluding": 3}, "colluding is 3, and there are 3 helpers"),
        ({"colluding": 0}, "has 3 helpers and colluding = 0; name two helpers"),
        ({"helpers": {"a": "0" * 64, "b": "0" * 64}, "colluding": 1}, "names two helpers with one key"),
        ({"fewest_devices": 4}, "from fewest_devices (4)"),
        ({"positions": "momentum"}, "'dense' goes with keep_fraction = 1"),
        ({"positions": "dense", "keep_fraction": 0.5}, "'dense' goes with keep_fraction = 1"),
    ],
)
def test_plan_that_contradicts_itself_is_refused(task, fields, words):
    plan = msgspec.structs.replace(task.masks, **fields)
    privacy = msgspec.structs.replace(task.privacy, masks=plan)
    assert words in refusal(changed(task, privacy=privacy))


@pytest.fixture(scope="module")
def encrypted(helpers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encrypted")
    return masked_bundle(folder, helpers[:1], colluding=0, key_holder="mask-0", bits=8).description


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"key_holder": None}, "has 1 helpers and colluding = 0; name two helpers"),
        ({"key_holder": "mask-1"}, "key_holder 'mask-1', who is none of the helpers ['mask-0']"),
        ({"helpers": {"mask-0": "0" * 64, "b": "1" * 64}}, "write colluding = 1, one below their number"),
        ({"bits": 16, "fewest_devices": 1000}, "don't decrypt exactly; lower bits or aggregation.buffer_size"),
    ],
)
def test_plan_with_a_key_holder_that_contradicts_itself_is_refused(encrypted, fields, words):
    plan = msgspec.structs.replace(encrypted.masks, **fields)
    privacy = msgspec.structs.replace(encrypted.privacy, masks=plan)
    devices = {"buffer_size": 1024, "staleness_weighting": "polynomial"} if "bits" in fields else {}
    assert words in refusal(changed(changed(encrypted, privacy=privacy), "aggregation", **devices))


def test_task_whose_encrypted_sum_travels_in_no_message_is_refused_with_its_size(encrypted):
    wide = changed(encrypted, parameters=[Parameter("head.weight", [4, 41_000])])
    with pytest.raises(ConfigurationError, match="makes questions of 2127232 bytes to the key holder"):
        check_masked_task(changed(wide, "aggregation", buffer_size=3), "task")
    fits = changed(encrypted, parameters=[Parameter("head.weight", [4, 38_000])])
    check_masked_task(fits, "task")


def test_bundle_without_the_key_holders_key_is_refused(encrypted):
    files = {name: digest for name, digest in encrypted.files.items() if name != "key_holder.key"}
    assert "and the bundle no key_holder.key; export it again" in refusal(changed(encrypted, files=files))


def test_positions_of_momentum_need_a_server_that_has_one(task):
    plan = msgspec.structs.replace(task.masks, keep_fraction=0.5, positions="momentum")
    masked = changed(task, privacy=msgspec.structs.replace(task.privacy, masks=plan))
    check_masked_task(masked, "task")
    assert "server_optimiser 'sgd' has none" in refusal(changed(masked, "aggregation", server_optimiser="sgd"))


@pytest.mark.parametrize("keep_fraction", [0.5, 0.1, 0.01, 0.001])
@pytest.mark.parametrize("parameters", [100, 20_000, 3_000_000])
def test_named_positions_take_no_more_than_the_plan_says(task, parameters, keep_fraction):
    plan = msgspec.structs.replace(task.masks, keep_fraction=keep_fraction, positions="momentum")
    most, named = plan.most_bytes_of_positions(parameters), plan.entries(parameters) // 2
    for step in {1, parameters // max(1, named)}:
        momentum = np.zeros(parameters, np.float32)
        momentum[::step][-named or parameters :] = 1
        assert named <= len(top_positions(momentum, plan.entries(parameters))) <= most


@pytest.mark.parametrize("devices", [2, 3, 50, 200, 1024])
@pytest.mark.parametrize("bits", [2, 8, 16])
def test_width_is_that_of_the_manifest(task, devices, bits):
    plan = msgspec.structs.replace(task.masks, bits=bits)
    for weights in ((1,), (1, 2, 3, 4)):
        manifest = manifest_of(most_devices=devices, bits=bits, weights=weights)
        assert plan.width(devices * weights[-1]) == field_of(manifest).width


def test_seeds_of_a_helper_are_those_of_the_seed_plan():
    for helpers in range(2, 6):
        for colluding in range(1, helpers):
            keys = {f"h{number}": f"{number:064x}" for number in range(helpers)}
            plan = MaskPlan(helpers=keys, clip=1.0, colluding=colluding)
            assert plan.seeds_of_a_helper == len(SeedPlan(helpers, colluding).held_by(0))
            assert seed_plan_of(manifest_of(helpers, colluding)).answers_needed == colluding + 1


def owner(task, **changes):
    keys = list(task.masks.helpers.values())
    usual = {"at_least": "masks", "trusted_mask_helpers": keys, "fewest_devices": 2, "fewest_colluding": 2}
    return PrivacySettings(**(usual | changes))


def test_owner_takes_a_task_that_keeps_what_is_demanded(task):
    assert owner(task).refusal(task) is None
    assert PrivacySettings().refusal(task) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fewest_devices": 3}, "has fewest_devices = 2 in [privacy.masks], and the owner of this device asks for 3"),
        ({"fewest_colluding": 3}, "has colluding = 2"),
        ({"trusted_mask_helpers": ["0" * 64, "1" * 64]}, "not among trusted_mask_helpers"),
        ({"at_least": "samples and masks"}, "has no [privacy.samples]"),
    ],
)
def test_owner_refuses_less_in_words(task, changes, words):
    assert words in str(owner(task, **changes).refusal(task))


def test_owner_who_demands_masks_refuses_a_task_without(task):
    plain = changed(task, privacy=None, versions_from="update")
    assert "has no [privacy.masks]" in str(owner(task).refusal(plain))


def test_owner_takes_one_key_holder_where_none_may_collude(encrypted):
    assert owner(encrypted, fewest_colluding=0).refusal(encrypted) is None
    keys = ["0" * 64, *encrypted.masks.helpers.values()]
    assert "has colluding = 0" in str(
        owner(encrypted, fewest_colluding=1, trusted_mask_helpers=keys).refusal(encrypted)
    )
    with pytest.raises(ValueError, match="need 1 keys or more"):
        PrivacySettings(at_least="masks", fewest_colluding=0)


def test_owner_has_to_name_helpers():
    with pytest.raises(ValueError, match="need 2 keys or more"):
        PrivacySettings(at_least="masks")
