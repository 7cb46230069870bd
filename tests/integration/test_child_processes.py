"""A child process of any program ends with its parent, even when that is killed."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fleet_host.child_process import NOT_STARTED, bound
from tests.support.waiting import DEADLINE_SECONDS, until

TREE = Path(__file__).parents[2]
PARENTS = {
    "inspection": (
        "from workbench.inspection.child import run_child\nrun_child('timeit', ['while True: pass'], dict, 'digits')\n",
        "timeit",
    ),
    "evaluation": (
        "import signal\nfrom pathlib import Path\nfrom broker_coordinator.serving.evaluator import Evaluator\n"
        "Evaluator(Path('pipe'), {'digits': 1}).note_version('digits', 1)\nsignal.pause()\n",
        "evaluate",
    ),
    "demo": (
        "import asyncio, sys\nfrom pathlib import Path\nfrom workbench.demo.children import Child\n"
        "async def run():\n"
        "    await Child('it', [sys.executable, '-m', 'timeit', 'while True: pass'], Path('it.log'), print).start()\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(run())\n",
        "timeit",
    ),
    "demo's command": (
        "import asyncio\nfrom workbench.demo.fleet_files import run_command\n"
        "asyncio.run(run_command('timeit', 'while True: pass'))\n",
        "timeit",
    ),
}
"""Programs whose child never ends, and a word of the child's command line. Nobody writes to `pipe`, which is read."""


@pytest.mark.parametrize("parent", PARENTS)
def test_child_dies_with_its_program(parent: str, tmp_path: Path) -> None:
    program, word = PARENTS[parent]
    os.mkfifo(tmp_path / "pipe")
    environment = os.environ | {"PYTHONPATH": str(TREE)}
    process = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, env=environment)
    try:
        (child,) = until(lambda: _started(process.pid, word), "the child runs")
    finally:
        process.kill()
        process.wait()
    psutil.wait_procs([child], timeout=DEADLINE_SECONDS)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def _started(parent: int, word: str) -> list[psutil.Process]:
    """Children that are their command already, no longer what becomes it."""
    found = [(child, child.cmdline()) for child in psutil.Process(parent).children()]
    return [child for child, line in found if word in line and "fleet_host.child_process" not in line]


SLOW = """
import sys
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from fleet_host.child_process import ended_after
from tests.support.graphs import loop, model_of
product = helper.make_node("MatMul", ["square", "square"], ["product"])
keep = helper.make_node("Identity", ["going"], ["still"])
going = helper.make_tensor_value_info("going", TensorProto.BOOL, [])
turn = helper.make_tensor_value_info("turn", TensorProto.INT64, [])
still = helper.make_tensor_value_info("still", TensorProto.BOOL, [])
out = helper.make_tensor_value_info("product", TensorProto.FLOAT, [400, 400])
body = helper.make_graph([product, keep], "body", [turn, going], [still, out])
square = numpy_helper.from_array(np.ones((400, 400), np.float32), "square")
session = onnxruntime.InferenceSession(model_of(loop(1_000_000, body), [square]).SerializeToString())
with ended_after(float(sys.argv[1]), "it takes too long"):
    session.run(None, {})
"""
"""A graph that the check takes, and that onnxruntime runs for minutes."""


def test_native_code_that_takes_too_long_is_ended_with_words() -> None:
    command = [sys.executable, "-c", SLOW, "0.1"]
    environment = os.environ | {"PYTHONPATH": str(TREE)}
    ended = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert (ended.returncode, ended.stderr) == (2, "it takes too long\n")


def test_command_that_can_not_be_executed_is_named() -> None:
    ended = subprocess.run(bound(["/nowhere/python"]), check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (NOT_STARTED, "/nowhere/python: No such file or directory\n")


def test_command_keeps_its_output_and_status() -> None:
    program = "import sys; print('said'); sys.exit(3)"
    ended = subprocess.run(bound([sys.executable, "-c", program]), check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (3, "said\n")
