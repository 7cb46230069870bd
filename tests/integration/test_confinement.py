"""A process shut in as the training worker is opens its libraries and its own files, and nothing else."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_agent.worker.contract import Progress, TrainingFailure, TrainingJob
from edge_agent.worker.settings import WorkerSettings
from edge_agent.worker.supervisor import train_in_child
from fleet_protocol.bundle_files import TRAIN_FILE, blob_hash
from tests.support.graphs import reader_of
from tests.support.waiting import DEADLINE_SECONDS
from tests.support.worker import make_job, store_samples
from workbench.recipe_folder import find_recipe

SECRET = b"SECRET: do not read me"
SETTINGS = WorkerSettings(nice=0)
PROBE = """
import ctypes, json, os, pathlib, signal, socket, subprocess, sys, threading
from bundle_runtime.graph import onnxruntime, session_options
from edge_agent.training import confinement, landlock
PREPARE
state, graph = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]).read_bytes()
os.chdir(state)
held = open("allowed.bin", "rb")
lacking = confinement.shut_in([state / "bundle"], None)
attempts = {
    "own file": lambda: (state / "bundle" / "train.onnx").read_bytes(),
    "open file": lambda: held.read(),
    "library": lambda: pathlib.Path(json.__file__).read_bytes(),
    "late import": lambda: __import__("wave"),
    "thread": lambda: (thread := threading.Thread(target=int), thread.start(), thread.join()),
    "key": lambda: (state / "device.key").read_bytes(),
    "key from the bundle": lambda: (state / "bundle" / ".." / "device.key").read_bytes(),
    "samples": lambda: (state / "samples.db").read_bytes(),
    "folder": lambda: os.listdir(state),
    "other file": lambda: pathlib.Path("/etc/passwd").read_bytes(),
    "environment of the agent": lambda: pathlib.Path(f"/proc/{os.getppid()}/environ").read_bytes(),
    "new file": lambda: (state / "new").write_bytes(b"x"),
    "own file, written": lambda: (state / "bundle" / "train.onnx").write_bytes(b"x"),
    "removal": lambda: (state / "bundle" / "train.onnx").unlink(),
    "link": lambda: os.symlink(state / "device.key", state / "bundle" / "link"),
    "TCP": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    "UDP": lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
    "Unix": lambda: socket.socket(socket.AF_UNIX),
    "pair": lambda: socket.socketpair(),
    "program": lambda: subprocess.run(["/bin/true"]).returncode,
    "signal": lambda: os.kill(os.getppid(), 0),
    "graph": lambda: onnxruntime.InferenceSession(graph, session_options(1)).run(None, {})[0].tolist(),
}
found = {}
for name, attempt in attempts.items():
    try:
        found[name] = repr(attempt())
    except Exception as error:
        found[name] = "refused " + str(error)
print(json.dumps({"lacking": lacking, "found": found}))
"""
ALLOWED = {"own file", "open file", "library", "late import", "thread"}
FILES = {
    "key", "key from the bundle", "samples", "folder", "other file", "environment of the agent", "new file",
    "own file, written", "removal", "link", "graph",
}  # fmt: skip


def probe(state: Path, prepare: str = "") -> dict[str, object]:
    (state / "bundle").mkdir()
    for name in ("device.key", "samples.db", "allowed.bin", "bundle/train.onnx"):
        (state / name).write_bytes(SECRET)
    graph = state / "graph"
    graph.write_bytes(reader_of("device.key"))
    command = [sys.executable, "-P", "-c", PROBE.replace("PREPARE", prepare), str(state), str(graph)]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    ended = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr
    result: dict[str, object] = json.loads(ended.stdout)
    return result


def refused(result: dict[str, object]) -> set[str]:
    found = result["found"]
    assert isinstance(found, dict)
    return {name for name, what in found.items() if what.startswith("refused")}


def test_only_libraries_and_own_files_can_be_opened_and_there_is_no_network(tmp_path) -> None:
    result = probe(tmp_path)
    found = result["found"]
    assert isinstance(found, dict)
    assert result["lacking"] == ""
    assert found.keys() - refused(result) == ALLOWED
    assert (tmp_path / "bundle" / "train.onnx").read_bytes() == SECRET


def test_graph_that_reads_a_file_reads_nothing_even_where_nothing_checked_it(tmp_path) -> None:
    """What every onnxruntime allows: a file beside the model."""
    (tmp_path / "open").mkdir()
    result = probe(tmp_path / "open", prepare="confinement.shut_in = lambda *_: ''")
    assert result["found"]["graph"] == repr([float(value) for value in SECRET[:8]])
    (tmp_path / "shut").mkdir()
    assert "graph" in refused(probe(tmp_path / "shut"))


def test_thread_that_was_not_confined_is_said(tmp_path) -> None:
    result = probe(tmp_path, "threading.Thread(target=threading.Event().wait, daemon=True).start()")
    assert result["lacking"] == "threads that run already"


@pytest.mark.parametrize("version", range(1, 7))
def test_every_version_of_landlock_keeps_files(version: int, tmp_path) -> None:
    older = f"""
call = landlock._call
landlock._call = lambda number, *words: {version} if words[-1] == landlock.GET_VERSION else call(number, *words)
"""
    result = probe(tmp_path, older)
    assert result["lacking"] == ""
    assert refused(result) >= FILES - ({"own file, written"} if version < 3 else set())


def test_kernel_without_landlock_still_refuses_network_and_programs_and_says_what_it_lacks(tmp_path) -> None:
    result = probe(tmp_path, "landlock.CREATE_RULESET = 9999")
    assert result["lacking"] == "files (Landlock: Function not implemented)"
    assert refused(result) >= {"TCP", "UDP", "Unix", "pair", "program", "signal"}
    assert "key" not in refused(result)


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    """A round on a state folder as an agent has it."""
    random = np.random.default_rng(0)
    samples = store_samples(
        tmp_path / "samples.db", "digits", random.random((40, 64), np.float32), random.integers(0, 10, 40)
    )
    (tmp_path / "device.key").write_bytes(SECRET)
    return make_job(find_recipe("digits") / "bundle", samples, memory_limit_mib=512)


@pytest.mark.parametrize("location", ["../../device.key", "../device.key", "samples.db"])
async def test_hostile_bundle_learns_nothing_and_the_round_says_why(location: str, job, tmp_path) -> None:
    graph = tmp_path / "blobs" / "hostile"
    graph.parent.mkdir()
    graph.write_bytes(reader_of(location, len(SECRET)))
    task = msgspec.structs.replace(job.description, files={TRAIN_FILE: blob_hash(graph.read_bytes())})
    hostile = msgspec.structs.replace(job, description=task, files={TRAIN_FILE: str(graph)})
    assert await train_in_child(hostile, SETTINGS) == TrainingFailure(
        "train.onnx has field 13 of TensorProto (external_data), which no bundle has; it is not loaded: fetch or export"
        " the bundle again"
    )


async def test_worker_trains_shut_in_and_holds_no_sample_store_open(children, job) -> None:
    seen: asyncio.Future[tuple[str, set[str]]] = asyncio.get_running_loop().create_future()

    def look(news: object) -> None:
        if isinstance(news, Progress) and news.phase == "training" and not seen.done():
            _, worker = children.all()
            status = Path(f"/proc/{worker.pid}/status").read_text()
            seen.set_result((status, {Path(file.path).name for file in worker.open_files()}))

    plan = msgspec.structs.replace(job.description.training, steps=200_000, epochs_per_round=0)
    long = msgspec.structs.replace(job, description=msgspec.structs.replace(job.description, training=plan))
    running = asyncio.ensure_future(train_in_child(long, SETTINGS, look))
    async with asyncio.timeout(DEADLINE_SECONDS):
        status, files = await seen
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    assert not files & {"samples.db", "device.key"}
