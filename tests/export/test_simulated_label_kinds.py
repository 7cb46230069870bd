"""A fleet is simulated on samples of every kind of label, from a file, and scored in the measure that fits."""

from pathlib import Path

import numpy as np
import pytest

from workbench.cli import main
from workbench.export.bundle_writer import export_bundle
from workbench.simulation.show import Request, prepare
from workbench.simulation.simulation import Options, Result

MODEL = """
from torch import nn

def build():
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, {outputs}))
"""
TASK = """
task = "pump"
title = "Four numbers of a pump"
seed = 1
[input]
shape = [4]
minimum = -{bound}
maximum = {bound}
[label]
{label}
[training]
steps = 30
batch_size = 16
learning_rate = {learning_rate}
[update]
keep_fraction = 0.5
[aggregation]
buffer_size = 4
"""
RANDOM = np.random.default_rng(7)
INPUTS = RANDOM.uniform(-1, 1, (400, 4))
SUMS = INPUTS @ np.array([[1, -1, 0.5, 0], [0, 0.5, 1, -1]]).T
NOTHING = np.empty((400, 0))
KINDS = {
    "class": ("classes = 2", 2, (SUMS[:, 0] > 0).astype(int), "accuracy", 0.85),
    "multi_label": ('kind = "multi_label"\nclasses = 2', 2, (SUMS > 0).astype(int), "F1 over all labels", 0.85),
    "regression": ('kind = "regression"\nvalues = 2', 2, SUMS, "R2", 0.5),
    "reconstruction": (
        'kind = "reconstruction"',
        4,
        np.empty((400, 0)),
        "share of the inputs' variance given back",
        0.5,
    ),
}


def export(folder: Path, kind: str, *, bound: float = 1.0, learning_rate: float = 0.2) -> Path:
    """The bundle of a small network for this kind of label; of raw readings (`bound` above 1), it scales nothing."""
    label, outputs, *_ = KINDS[kind]
    (folder / "recipe").mkdir()
    (folder / "recipe" / "model.py").write_text(MODEL.format(outputs=outputs))
    text = TASK.format(label=label, bound=bound, learning_rate=learning_rate)
    off = '[scaling]\ninputs = "off"\n' + 'targets = "off"\n' * (kind == "regression")
    (folder / "recipe" / "task.toml").write_text(text + off * (bound > 1))
    export_bundle(folder / "recipe", folder / "bundle")
    return folder / "bundle"


def write_csv(path: Path, inputs: np.ndarray, labels: np.ndarray) -> Path:
    table = labels.reshape(len(inputs), -1)
    header = [f"x{place}" for place in range(4)] + [f"label_{place}" for place in range(table.shape[1])]
    np.savetxt(path, np.hstack([inputs, table]), delimiter=",", header=",".join(header), comments="")
    return path


def run(bundle: Path, data: Path) -> Result:
    request = Request(8, ["pi-4"], None, str(bundle), str(data), None, None, None, None, None, as_json=True)
    return prepare(request, Options(seed=1, seconds=240 * 3600, score_every=50)).run()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_label_is_learned_and_scored_in_its_own_measure(tmp_path, kind):
    *_, labels, measure, good = KINDS[kind]
    summary = run(export(tmp_path, kind), write_csv(tmp_path / "samples.csv", INPUTS, labels)).summary
    assert summary.measure == measure
    assert summary.first_score < good < summary.score <= 1


def simulate(bundle: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """The command's exit status."""
    command = ["edgeflock", "simulate", "--task", str(bundle), "--data", str(data), "--devices", "8"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code)


def test_raw_readings_that_diverge_end_the_simulation_with_the_remedy(tmp_path, capsys, monkeypatch):
    bundle = export(tmp_path, "regression", bound=1000.0, learning_rate=0.3)
    data = write_csv(tmp_path / "samples.csv", 400 * np.abs(INPUTS), 400 * SUMS)
    assert simulate(bundle, data, monkeypatch) == 1
    told = capsys.readouterr()
    assert "scale the inputs" in told.out
    assert "lower [training] learning_rate" in told.out
    assert "edgeflock: nothing was learned" in told.err


def test_samples_beyond_the_bounds_are_refused_before_anything_is_simulated(tmp_path, capsys, monkeypatch):
    data = write_csv(tmp_path / "samples.csv", 400 * INPUTS, SUMS)
    assert simulate(export(tmp_path, "regression"), data, monkeypatch) == 2
    told = capsys.readouterr().err
    assert "samples.csv, line 2: input 0 is" in told
    assert "pump takes -1 to 1; scale the inputs to these bounds, or correct [input] in task.toml" in told


def test_held_out_samples_that_do_not_vary_give_no_score(tmp_path, capsys, monkeypatch):
    data = write_csv(tmp_path / "samples.csv", INPUTS, np.full((400, 2), 3.0))
    assert simulate(export(tmp_path, "regression"), data, monkeypatch) == 2
    assert "the 80 samples held out all have the same values to predict" in capsys.readouterr().err
