"""`edgeflock export` and `inspect` try a round: they say when training is not steady, and what to change."""

from pathlib import Path

import numpy as np
import pytest

from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.errors import ConfigurationError
from tests.export.test_simulated_label_kinds import INPUTS, SUMS, export, write_csv
from workbench.cli import main
from workbench.inspection.bundle_inspection import inspect_bundle
from workbench.inspection.trial_round import try_round

REMEDY = "scale the inputs to about -1 to 1, lower [training] learning_rate, or set its gradient_clip"


def unsteady(folder: Path, samples: Path | None = None) -> str | None:
    return try_round(folder, load_bundle(folder).description, samples).unsteady


@pytest.mark.parametrize(("bound", "learning_rate"), [(1.0, 0.2), (1.0, 0.01)])
def test_scaled_inputs_are_steady(tmp_path, bound, learning_rate):
    assert unsteady(export(tmp_path, "regression", bound=bound, learning_rate=learning_rate)) is None


def test_raw_readings_with_a_large_learning_rate_are_said_to_be_unsteady_with_the_remedy(tmp_path):
    bundle = export(tmp_path, "reconstruction", bound=400.0, learning_rate=0.3)
    trial = inspect_bundle(bundle).trial
    assert trial.samples.startswith("inputs from -39")
    assert trial.samples.endswith("spread evenly over the schema's bounds")
    assert trial.unsteady.endswith(REMEDY)


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        (400.0, "training diverged: its update has norm "),
        (1e39, "training diverged at step 0 of 30: loss inf"),
    ],
)
def test_the_device_judges_the_round_in_its_own_words(tmp_path, bound, words):
    assert unsteady(export(tmp_path, "reconstruction", bound=bound, learning_rate=0.3)).startswith(words)


def test_a_round_is_tried_on_real_samples_where_they_are_given(tmp_path):
    bundle = export(tmp_path, "regression", bound=400.0, learning_rate=0.1)
    data = write_csv(tmp_path / "samples.csv", INPUTS, SUMS)
    trial = inspect_bundle(bundle, data).trial
    assert trial.samples.startswith(f"the 400 samples of {data}, inputs from -0.99")
    assert trial.unsteady is None
    write_csv(data, 500 * INPUTS, SUMS)
    with pytest.raises(ConfigurationError, match=r"samples\.csv, line \d+: input \d is .*; pump takes -400 to 400"):
        inspect_bundle(bundle, data)


def test_export_says_that_training_is_unsteady_and_writes_the_bundle(tmp_path, capsys, monkeypatch):
    export(tmp_path, "reconstruction", bound=400.0, learning_rate=0.3)
    monkeypatch.setattr("sys.argv", ["edgeflock", "export", str(tmp_path / "recipe"), "--out", str(tmp_path / "again")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    told = capsys.readouterr()
    assert "task pump" in told.out
    assert told.err.startswith("edgeflock: a round on inputs spread over [input] of task.toml: ")
    assert told.err.strip().endswith(REMEDY)
    assert np.array_equal(load_bundle(tmp_path / "again").weights, load_bundle(tmp_path / "bundle").weights)
