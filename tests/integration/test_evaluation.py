"""Versions are evaluated on held-out samples with the bundle's own graph, beside the coordinator, never in its way."""

import json
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
from fleet_protocol.bundle import EVALUATE_FILE
from fleet_protocol.codec import read_weights
from fleet_protocol.errors import ConfigurationError
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
        found = evaluate(digits, version_zero(digits), read_samples(tmp_path / name, digits.description))
        assert (found.version, found.samples) == (0, SAMPLES)
        assert found.loss == pytest.approx(losses.mean(), rel=1e-5)
        assert found.accuracy == pytest.approx(correct.mean())


def test_file_that_does_not_fit_is_refused(tmp_path, digits, arrays) -> None:
    def refusal(name: str, **wrong: np.ndarray) -> str:
        np.savez(tmp_path / name, **wrong)
        with pytest.raises(ConfigurationError) as caught:
            read_samples(tmp_path / name, digits.description)
        return str(caught.value)

    assert "lacks the array 'labels'; it contains inputs" in refusal("one.npz", inputs=arrays["inputs"])
    assert "'inputs' has shape" in refusal("two.npz", inputs=arrays["inputs"][:, :5], labels=arrays["labels"])
    assert "'labels' has shape" in refusal("three.npz", inputs=arrays["inputs"], labels=arrays["labels"][:7])
    assert "'inputs' has shape (0," in refusal("four.npz", inputs=arrays["inputs"][:0], labels=arrays["labels"][:0])
    pickled = np.array([object()], dtype=object)
    assert "allow_pickle=False" in refusal("five.npz", inputs=pickled, labels=arrays["labels"])
    with pytest.raises(ConfigurationError, match=r"\.npz or \.safetensors"):
        read_samples(tmp_path / "six.pkl", digits.description)
    with pytest.raises(ConfigurationError, match="No such file"):
        read_samples(tmp_path / "missing.npz", digits.description)


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


def test_evaluator_has_its_child_evaluate_what_is_due(configuration: Path, caplog) -> None:
    evaluator = Evaluator(configuration, {"digits": 2})
    try:
        with Journal.open(configuration.parent / "coordinator.db") as journal, caplog.at_level("INFO"):
            evaluator.note_version("digits", 3)
            evaluator.note_version("roses", 2)
            evaluator.note_version("digits", 0)
            until(lambda: "version_evaluated task=digits version=0" in caplog.text, "the log says so", CHILD_SECONDS)
            assert list(journal.evaluations("digits")) == [0]
            evaluator.note_version("digits", 8)
            until(lambda: "evaluation_failed task=digits version=8" in caplog.text, "it says why not", CHILD_SECONDS)
            assert list(journal.evaluations("digits")) == [0]
    finally:
        evaluator.stop()
