"""The small pair that tests train over a real broker is what its recipe exports."""

import msgspec
import numpy as np
import pytest

from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.codec import read_weights
from tests.support.known_pair import FOLDER
from workbench.export.bundle_writer import export_bundle


@pytest.mark.long
def test_committed_small_pair_is_what_its_recipe_exports(tmp_path):
    export_bundle(FOLDER.parent, tmp_path / "bundle")
    committed, fresh = load_bundle(FOLDER), load_bundle(tmp_path / "bundle")
    assert committed.files.keys() == fresh.files.keys()
    without_files = [msgspec.structs.replace(each.description, files={}) for each in (committed, fresh)]
    assert without_files[0] == without_files[1]
    weights = [read_weights(each.weights, each.description.parameters) for each in (committed, fresh)]
    np.testing.assert_array_equal(*weights)
