"""Each command without one of its optional packages: one line with what to install, and exit status 2."""

import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]
PROGRAM = """
import sys

for name in [found for found in sys.modules if found.split(".")[0] == sys.argv[2]]:
    del sys.modules[name]
sys.modules[sys.argv[2]] = None
module, missing = sys.argv[1:3]
sys.argv[:3] = [module]
sys.exit(getattr(__import__(module, fromlist=["main"]), "main")())
"""
PSYCOPG = """
fleet = "home"
key_file = "coordinator.key"
database = "postgresql+psycopg://edgeflock@127.0.0.1:1/flock"
[broker]
host = "127.0.0.1"
"""


def told(module: str, missing: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, module, missing, *arguments]
    return subprocess.run(command, cwd=TREE, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("missing", "extra", "command"),
    [
        ("sqlalchemy", "coordinator", ["broker_coordinator.cli", "--help"]),
        ("prometheus_client", "coordinator", ["broker_coordinator.cli", "--version"]),
        ("starlette", "dashboard", ["workbench.cli", "dashboard", "--config", "coordinator.toml"]),
        ("uvicorn", "dashboard", ["workbench.cli", "dashboard", "--config", "coordinator.toml"]),
        ("psycopg", "postgresql", ["broker_coordinator.cli", "tasks", "list", "--config"]),
        ("typer", "demo", ["workbench.cli", "--help"]),
        ("rich", "demo", ["workbench.cli", "inspect", "models/digits/bundle"]),
        ("sklearn", "demo", ["workbench.cli", "simulate", "--data", "digits", "--hours", "0.01"]),
        ("ray", "ray", ["workbench.cli", "simulate", "--data", "digits", "--devices", "2", "--ray"]),
        ("sqlalchemy", "coordinator", ["workbench.cli", "decode", "README.md"]),
        ("onnx", "workbench", ["workbench.cli", "inspect", "models/digits/bundle"]),
        ("onnx", "workbench", ["workbench.cli", "export", "digits", "--out"]),
        ("torch", "workbench", ["workbench.cli", "export", "digits", "--out"]),
    ],
)
def test_missing_package_is_one_line_that_names_its_extra(tmp_path, missing, extra, command):
    if command[-1] == "--config":
        (tmp_path / "coordinator.toml").write_text(PSYCOPG)
        command = [*command, str(tmp_path / "coordinator.toml")]
    if command[-1] == "--out":
        command = [*command, str(tmp_path / "bundle")]
    done = told(command[0], missing, *command[1:])
    assert done.returncode == 2, done.stderr
    assert missing in done.stderr
    assert f"pip install 'edgeflock[{extra}]'" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("missing", ["sqlalchemy", "prometheus_client", "typer", "rich", "torch", "onnx"])
@pytest.mark.parametrize("program", ["edge_agent.cli", "workbench.program helper"])
def test_device_and_helper_need_no_optional_package(program, missing):
    module, *verb = program.split()
    done = told(module, missing, *verb, "--version")
    assert (done.returncode, done.stderr) == (0, "")
