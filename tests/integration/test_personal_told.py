"""What operators are told of a shared model where devices answer with their own."""

import json
from pathlib import Path

import numpy as np
import pytest

from broker_coordinator import cli
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_protocol.codec import read_weights
from fleet_protocol.personal_plan import PersonalPlan
from tests.support.agent import copy_digits_bundle

HEAD = PersonalPlan(parameters=("3.*",))


def configured(folder: Path, plan: PersonalPlan | None) -> Path:
    """Of a coordinator that serves the digits with this table."""
    generator = np.random.default_rng(5)
    inputs = generator.random((40, 64)).astype(np.float32)
    np.savez(folder / "held-out.npz", inputs=inputs, labels=generator.integers(0, 10, 40))
    with Journal.open(folder / "coordinator.db") as journal:
        TaskRegistry(journal.engine).publish(copy_digits_bundle(folder / "digits", personal=plan))
    path = folder / "coordinator.toml"
    path.write_text(
        'fleet = "lab"\nkey_file = "key"\ndatabase = "coordinator.db"\n[broker]\nhost = "localhost"\n'
        '[[evaluations]]\ntask = "digits"\nfile = "held-out.npz"\nevery = 2\n'
    )
    return path


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (HEAD, "3.weight, 3.bias never leave a device; here are the values that a new one begins with"),
        (PersonalPlan("ditto"), "each device answers with a copy of its own, pulled towards this model"),
        (PersonalPlan("maml"), "this model is one to begin with: each device adapts it to its samples"),
        (None, None),
    ],
)
def test_figures_and_files_say_that_devices_answer_with_another_model(tmp_path, capsys, plan, words):
    configuration = str(configured(tmp_path, plan))
    out = tmp_path / "model.safetensors"
    for action in (["show", "digits"], ["evaluate", "digits"], ["export", "digits", str(out)]):
        assert cli.main(["tasks", "--config", configuration, *action, "--json"]) == 0
        assert json.loads(capsys.readouterr().out).get("personal") == words
    with Journal.open(tmp_path / "coordinator.db") as journal:
        bundle = TaskRegistry(journal.engine).bundle("digits")
    exported = read_weights(out.read_bytes(), bundle.description.parameters)
    first = read_weights(bundle.weights, bundle.description.parameters)
    np.testing.assert_array_equal(exported, bundle.grid().rounded(first, bundle.description.shapes))
