"""Versions are evaluated on held-out samples with the bundle's own graph, beside the coordinator, never in its way."""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import save_file

from broker_coordinator import cli
from broker_coordinator.aggregation.version import version_zero
from broker_coordinator.serving.evaluation import evaluate
from broker_coordinator.serving.evaluator import Evaluator
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.runner import EVALUATED_AT_ONCE
from bundle_runtime.sample_file import read_samples
from fleet_protocol.bundle_files import EVALUATE_FILE
from fleet_protocol.codec import read_weights
from tests.support.waiting import until

DIGITS = Path(__file__).parents[2] / "models/digits/bundle"
CHILD_SECONDS = 120.0
"""A child that steps back for others starts slowly on a busy machine."""
SAMPLES = EVALUATED_AT_ONCE + 44


@pytest.fixture
def digits() -> Bundle:
    return load_bundle(DIGITS)


@pytest.fixture
def arrays(digits: Bundle) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(5)
    schema = digits.description.input
    inputs = generator.uniform(schema.minimum, schema.maximum, (SAMPLES, *schema.shape)).astype(np.float32)
    return {"inputs": inputs, "labels": generator.integers(0, digits.description.label.classes, SAMPLES)}


def test_evaluation_is_the_mean_over_all_samples(tmp_path, digits, arrays) -> None:
    np.savez(tmp_path / "held-out.npz", **arrays)
    save_file(arrays, tmp_path / "held-out.safetensors")
    session = onnxruntime.InferenceSession(DIGITS / EVALUATE_FILE)
    weights = read_weights(version_zero(digits).weights, digits.description.parameters)
    losses, correct = session.run(["losses", "correct"], arrays | {"weights": weights})
    for name in ("held-out.npz", "held-out.safetensors"):
        found, heads = evaluate(digits, version_zero(digits), read_samples(tmp_path / name, digits.description))
        assert (found.version, found.samples, heads) == (0, SAMPLES, {})
        assert found.loss == pytest.approx(losses.mean(), rel=1e-5)
        assert found.accuracy == pytest.approx(correct.mean())


@pytest.fixture
def configuration(tmp_path: Path, digits: Bundle, arrays: dict[str, np.ndarray]) -> Path:
    """Of a coordinator that serves the digits and holds samples out."""
    np.savez(tmp_path / "held-out.npz", **arrays)
    with Journal.open(tmp_path / "coordinator.db") as journal:
        TaskRegistry(journal.engine).publish(digits)
    path = tmp_path / "coordinator.toml"
    path.write_text(
        'fleet = "lab"\nkey_file = "key"\ndatabase = "coordinator.db"\n[broker]\nhost = "localhost"\n'
        '[[evaluations]]\ntask = "digits"\nfile = "held-out.npz"\nevery = 2\n'
    )
    return path


def test_command_stores_what_show_tells(configuration: Path, capsys) -> None:
    assert cli.main(["tasks", "--config", str(configuration), "evaluate", "digits", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["task"], told["version"], told["samples"]) == ("digits", 0, SAMPLES)
    assert cli.main(["tasks", "--config", str(configuration), "show", "digits", "--json"]) == 0
    (version,) = json.loads(capsys.readouterr().out)["versions"]
    assert version["evaluation"] == {name: told[name] for name in ("version", "samples", "loss", "accuracy")}
    assert cli.main(["tasks", "--config", str(configuration), "evaluate", "digits", "--version", "8"]) == 2
    assert "version 8 of digits is not in the journal" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "row", "value", "words"),
    [
        ("labels", 4, 10, "row 4 (the first is 0): label is 10; digits takes a whole number from 0 to 9"),
        ("labels", 0, -1, "row 0 (the first is 0): label is -1; digits takes a whole number from 0 to 9"),
        ("labels", 9, 0.7, "row 9 (the first is 0): label is 0.7; digits takes a whole number from 0 to 9"),
        ("labels", 7, np.nan, "row 7 (the first is 0): label is nan; digits takes a whole number from 0 to 9"),
        ("inputs", 2, np.nan, "row 2 (the first is 0): input 0 is nan; digits takes 0 to 1"),
        ("inputs", 3, 16.0, "row 3 (the first is 0): input 0 is 16; digits takes 0 to 1"),
    ],
)
def test_command_refuses_held_out_samples_that_no_device_would_take(
    *, configuration: Path, arrays: dict[str, np.ndarray], capsys, name: str, row: int, value: float, words: str
) -> None:
    wrong = arrays[name].astype(np.float64)
    wrong[row, ...] = value
    np.savez(configuration.parent / "held-out.npz", **(arrays | {name: wrong}))
    assert cli.main(["tasks", "--config", str(configuration), "evaluate", "digits"]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert f"1 of {SAMPLES} samples don't fit" in told
    with Journal.open(configuration.parent / "coordinator.db") as journal:
        assert journal.overview.evaluations("digits") == {}


def test_evaluator_has_its_child_evaluate_what_is_due(configuration: Path, caplog) -> None:
    evaluator = Evaluator(configuration, {"digits": 2})
    try:
        with Journal.open(configuration.parent / "coordinator.db") as journal, caplog.at_level("INFO"):
            evaluator.note_version("digits", 3)
            evaluator.note_version("roses", 2)
            evaluator.note_version("digits", 0)
            until(lambda: "version_evaluated task=digits version=0" in caplog.text, "the log says so", CHILD_SECONDS)
            assert list(journal.overview.evaluations("digits")) == [0]
            evaluator.note_version("digits", 8)
            until(lambda: "evaluation_failed task=digits version=8" in caplog.text, "it says why not", CHILD_SECONDS)
            assert list(journal.overview.evaluations("digits")) == [0]
    finally:
        evaluator.stop()


def test_evaluation_without_an_end_is_killed_and_the_next_has_its_turn(tmp_path: Path, caplog) -> None:
    os.mkfifo(tmp_path / "coordinator.toml")  # whoever reads it waits for ever
    evaluator = Evaluator(tmp_path / "coordinator.toml", {"digits": 1, "roses": 1}, longest_seconds=0.5)
    try:
        for task in ("digits", "roses"):
            evaluator.note_version(task, 1)
        until(lambda: "task=roses" in caplog.text, "the second had its turn", CHILD_SECONDS)
    finally:
        evaluator.stop()
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f'event=evaluation_failed task={task} version=1 error="it passed its time limit of 0.5 s and was killed"'
        for task in ("digits", "roses")
    ]
