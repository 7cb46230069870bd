"""What importing a program loads: a sleeping agent is small, and onnxruntime comes with its telemetry off."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from broker_coordinator.cli import VERBS

FORBIDDEN = {
    "numpy",
    "onnxruntime",
    "safetensors",
    "onnx",
    "torch",
    "sqlalchemy",
    "broker_coordinator",
    "workbench",
    "fleet_protocol.codec",
    "edge_agent.training.worker",
    "edge_agent.training.engine",
    "edge_agent.training.onnx_step",
}

TREE = Path(__file__).parents[2]
PACKAGES = ("fleet_protocol", "fleet_host", "bundle_runtime", "edge_agent", "broker_coordinator", "workbench")
IMPORTS_ONNXRUNTIME = {"bundle_runtime/graph.py", "workbench/export/ort_artifacts.py"}
"""The second is a program of its own, which another Python runs on onnxruntime-training 1.19.2."""


def loaded_by(module: str) -> set[str]:
    """Every module that a fresh interpreter holds after importing `module`."""
    program = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    command = [sys.executable, "-c", program]
    return set(subprocess.run(command, cwd=TREE, check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize(
    "module", ["edge_agent.cli", "edge_agent.shell.agent", "session_relay.helper.cli", "fleet_protocol.kinds"]
)
def test_agent_without_training_loads_no_heavy_module(module):
    loaded = loaded_by(module)
    assert module in loaded
    assert loaded & FORBIDDEN == set()


OPTIONAL = {"psycopg", "starlette", "uvicorn", "onnxruntime", "onnx", "torch", "sklearn", "scipy", "tenseal", "rich"}
DATABASE = {"sqlalchemy", "numpy", "broker_coordinator.storage.database", "broker_coordinator.configuration"}
SERVING = {"prometheus_client", "broker_coordinator.serving.coordinator"}
RUNNING = {"aiomqtt", "paho", "psutil", "edge_agent.shell.agent", "edge_agent.shell.storage.device_database"}


@pytest.mark.parametrize(
    ("parser", "left_out"),
    [
        ("broker_coordinator.cli", OPTIONAL | DATABASE | SERVING),
        ("broker_coordinator.cli.parser('keygen')", OPTIONAL | DATABASE | SERVING),
        ("broker_coordinator.cli.parser('install-service')", OPTIONAL | DATABASE | SERVING),
        ("broker_coordinator.cli.parser('database')", OPTIONAL | SERVING),
        ("broker_coordinator.cli.parser('devices')", OPTIONAL | SERVING),
        ("broker_coordinator.cli.parser('run')", OPTIONAL),
        ("edge_agent.cli.parser()", FORBIDDEN | OPTIONAL | RUNNING),
        ("session_relay.helper.cli.parser()", FORBIDDEN | OPTIONAL | RUNNING),
    ],
)
def test_a_verb_starts_without_what_other_verbs_need(parser, left_out):
    module = parser.partition(".parser")[0]
    loaded = loaded_by(f"{module}; {parser}")
    assert module in loaded
    assert loaded & left_out == set()


def test_the_coordinator_that_runs_loads_no_other_verb():
    loaded = loaded_by("broker_coordinator.cli; broker_coordinator.cli.parser('run')")
    assert "broker_coordinator.commands.run" in loaded
    others = {f"broker_coordinator.commands.{module}" for module, _ in VERBS.values()} - {
        "broker_coordinator.commands.run"
    }
    assert loaded & others == set()


def test_training_worker_loads_no_network():
    loaded = loaded_by("edge_agent.training.worker, edge_agent.training.onnx_step")
    assert {"numpy", "onnxruntime"} <= loaded
    assert (
        loaded & {"aiomqtt", "paho", "edge_agent.shell.connection.link", "edge_agent.shell.connection.identity"}
        == set()
    )


def imported_by(file: Path) -> set[str]:
    """The packages that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_one_module_imports_onnxruntime():
    files = [file for package in PACKAGES for file in (TREE / package).rglob("*.py")]
    importing = {str(file.relative_to(TREE)) for file in files if "onnxruntime" in imported_by(file)}
    assert importing == IMPORTS_ONNXRUNTIME


def test_onnxruntime_writes_nothing_into_the_home_folder_and_telemetry_is_off(tmp_path):
    program = """
import os
from pathlib import Path
from bundle_runtime.graph import Graph
assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
Graph("predict.onnx", Path("models/digits/bundle/predict.onnx"))
"""
    assert written_into_the_home_folder(tmp_path, "-c", program) == []


def test_program_beside_another_onnxruntime_writes_nothing_either(tmp_path):
    assert written_into_the_home_folder(tmp_path, "workbench/export/ort_artifacts.py", "--help") == []


def written_into_the_home_folder(home: Path, *arguments: str) -> list[Path]:
    environment = os.environ | {"HOME": str(home)}
    for name in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"):
        environment.pop(name, None)
    subprocess.run([sys.executable, *arguments], cwd=TREE, check=True, env=environment)
    return list(home.rglob("*"))
