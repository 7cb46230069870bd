"""The contracts in pyproject.toml refuse what they are for: tried on a copy of the tree with one import planted."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]
PACKAGES = (
    "fleet_protocol",
    "secure_aggregation",
    "fleet_host",
    "bundle_runtime",
    "edge_agent",
    "broker_coordinator",
    "session_relay",
    "prompt_synthesis",
    "workbench",
)


def lint(tree: Path) -> tuple[int, str]:
    """Exit code and words of import-linter."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    environment = os.environ | {"PYTHONPATH": str(tree), "COLUMNS": "200"}
    done = subprocess.run(
        [*command, "--no-cache"], cwd=tree, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The packages, as they are."""
    copy = tmp_path_factory.mktemp("tree")
    for package in PACKAGES:
        shutil.copytree(TREE / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(TREE / "pyproject.toml", copy)
    return copy


@pytest.mark.parametrize(
    ("file", "planted", "words"),
    [
        ("edge_agent/core/guards.py", "import time", "edge_agent.core is not allowed to import time"),
        ("fleet_protocol/cohort.py", "import random", "edge_agent.core is not allowed to import random"),
        (
            "broker_coordinator/aggregation/contribution.py",
            "import time",
            "broker_coordinator.aggregation is not allowed to import time",
        ),
        ("edge_agent/producers/update.py", "import secrets", "edge_agent.producers is not allowed to import secrets"),
        (
            "edge_agent/core/triggers.py",
            "import edge_agent.shell.host.machine",
            "edge_agent.core is not allowed to import edge_agent.shell",
        ),
        (
            "edge_agent/shell/learning/rounds.py",
            "import edge_agent.training.engine",
            "edge_agent.shell is not allowed to import edge_agent.training",
        ),
        (
            "prompt_synthesis/generators/features.py",
            "import prompt_synthesis.publishing",
            "prompt_synthesis.generators is not allowed to import prompt_synthesis.publishing",
        ),
        (
            "secure_aggregation/device.py",
            "import secure_aggregation.coordinator",
            "secure_aggregation.device is not allowed to import secure_aggregation.coordinator",
        ),
    ],
    ids=[
        "clock in a core",
        "randomness below a core",
        "clock in the coordinator",
        "secrets in a producer",
        "upward",
        "training in the agent",
        "journal in a generator",
        "coordinator behind a mask",
    ],
)
def test_planted_import_breaks_its_contract(copy, file, planted, words):
    path = copy / file
    text = path.read_text()
    path.write_text(f"{text}\n{planted}\n")
    try:
        code, said = lint(copy)
    finally:
        path.write_text(text)
    assert code == 1
    assert words in " ".join(said.split())


def test_tree_as_it_is_keeps_every_contract(copy):
    code, said = lint(copy)
    assert code == 0, said
