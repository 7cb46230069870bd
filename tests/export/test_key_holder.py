"""A task with a key holder takes its encryption key into the bundle, and is refused without it, in words."""

import shutil
from pathlib import Path

import msgspec
import pytest

from bundle_runtime.bundle_folder import load_bundle
from edge_agent.training.masked_update import encryption_key
from fleet_protocol.bundle_files import KEY_HOLDER_FILE
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import write_verify_key
from fleet_protocol.privacy.mask_plan import MaskPlan
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from session_relay.helper.mask_claims import MaskClaims
from tests.support.masked_cohort import key_of
from workbench.export.bundle_writer import export_bundle
from workbench.recipe_folder import find_recipe


@pytest.fixture
def claims(tmp_path):
    return MaskClaims(tmp_path / "claims.db")


@pytest.fixture
def recipe(tmp_path):
    return Path(shutil.copytree(find_recipe("digits"), tmp_path / "digits", ignore=shutil.ignore_patterns("bundle")))


def with_key_holder(key):
    def change(task):
        masks = MaskPlan(helpers={"gateway": write_verify_key(key)}, clip=0.05, colluding=0, key_holder="gateway")
        aggregation = msgspec.structs.replace(task.aggregation, strategy="fedbuff", buffer_size=20)
        return msgspec.structs.replace(task, privacy=PrivacyPlan(masks=masks), aggregation=aggregation)

    return change


def test_bundle_has_the_key_that_devices_encrypt_under(tmp_path, recipe, claims):
    secret, file = claims.encryption_key()
    assert secret not in file
    (recipe / KEY_HOLDER_FILE).write_bytes(file)
    export_bundle(recipe, tmp_path / "out", change=with_key_holder(claims.key.verify_key))
    bundle = load_bundle(tmp_path / "out")
    assert bundle.files[KEY_HOLDER_FILE] == file
    assert encryption_key(file, bundle.description) is not None


def test_recipe_without_it_or_with_another_helpers_is_refused_with_the_command(tmp_path, recipe, claims):
    remedy = "write it with `edgeflock-helper encryption-key` on gateway"
    change = with_key_holder(key_of("gateway").verify_key)
    with pytest.raises(ConfigurationError, match=f"key_holder.key: No such file or directory; {remedy}"):
        export_bundle(recipe, tmp_path / "out", change=change)
    (recipe / KEY_HOLDER_FILE).write_bytes(claims.encryption_key()[1])
    with pytest.raises(ConfigurationError, match=f"not signed by the key holder that the task names; {remedy}"):
        export_bundle(recipe, tmp_path / "out", change=change)
