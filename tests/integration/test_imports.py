"""A sleeping agent is small: what a fresh `edge-agent` has loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

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


def loaded_by(module: str) -> set[str]:
    """Every module that a fresh interpreter holds after importing `module`."""
    program = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    tree = Path(__file__).parents[2]
    command = [sys.executable, "-c", program]
    return set(subprocess.run(command, cwd=tree, check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize("module", ["edge_agent.cli", "edge_agent.shell.agent", "fleet_protocol.kinds"])
def test_agent_without_training_loads_no_heavy_module(module):
    loaded = loaded_by(module)
    assert module in loaded
    assert loaded & FORBIDDEN == set()


def test_training_worker_loads_no_network():
    loaded = loaded_by("edge_agent.training.worker, edge_agent.training.onnx_step")
    assert {"numpy", "onnxruntime"} <= loaded
    assert loaded & {"aiomqtt", "paho", "edge_agent.shell.link", "edge_agent.shell.identity"} == set()
