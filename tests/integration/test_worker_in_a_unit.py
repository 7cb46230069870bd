"""What runs graphs, started for each connection as systemd does it, by systemd's own tool: no child of the agent."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest

from bundle_runtime.bundle_folder import load_bundle
from edge_agent.shell.predicting.resident_predictor import ResidentPredictor
from edge_agent.shell.versions.version_follower import ReadyVersion
from edge_agent.worker.child import ENVIRONMENT, HELLO, SOCKET_VARIABLE
from edge_agent.worker.contract import TrainingFailure, TrainingJob, TrainingResult
from edge_agent.worker.prediction import predicting_files
from edge_agent.worker.settings import WorkerSettings
from edge_agent.worker.supervisor import TrainingWorker, train_in_child
from tests.support.process import TREE
from tests.support.waiting import until
from tests.support.worker import make_job, store_samples
from workbench.recipe_folder import find_recipe

SETTINGS = WorkerSettings(nice=0)
BUNDLE = find_recipe("digits") / "bundle"
UNIT_CHILD = (sys.executable, "-P", "-m", "edge_agent.training.unit_child")
ROW = np.linspace(0, 1, 64, dtype=np.float32)


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    inputs = np.random.default_rng(0).random((40, 64), np.float32)
    return make_job(BUNDLE, store_samples(tmp_path / "samples.db", "digits", inputs, np.arange(40) % 10))


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[psutil.Process]:
    """Starts a worker for each connection to the socket that the variable names."""
    path = tmp_path / "worker.sock"
    activate = ("systemd-socket-activate", "--accept", "--inetd", "--listen", str(path))
    tree = {"PYTHONPATH": str(TREE)}  # systemd passes on nothing by itself
    passed = [f"--setenv={name}={value}" for name, value in (ENVIRONMENT | tree).items()]
    errors = (tmp_path / "journal").open("wb")
    with errors, subprocess.Popen([*activate, *passed, *UNIT_CHILD], stderr=errors) as process:
        until(path.exists, "the socket is there")
        monkeypatch.setenv(SOCKET_VARIABLE, str(path))
        yield psutil.Process(process.pid)
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()


def running(service: psutil.Process) -> list[psutil.Process]:
    return [each for each in service.children(recursive=True) if each.status() != psutil.STATUS_ZOMBIE]


async def test_rounds_in_a_unit_give_what_rounds_in_a_child_give_and_their_time_is_counted_after_them(
    service, job, children, monkeypatch
) -> None:
    worker = TrainingWorker(msgspec.structs.replace(SETTINGS, stay_seconds=30.0))
    first = await worker.train(job)
    assert isinstance(first, TrainingResult)
    (warm,) = running(service)
    assert await worker.train(job) == first
    assert running(service) == [warm]
    assert [child for child in children.all() if child != service and service not in child.parents()] == []
    spent = worker.spent_milliseconds
    await worker.end()
    assert worker.spent_milliseconds >= spent > 0, "the kernel counts it as no child's"
    assert running(service) == []
    monkeypatch.delenv(SOCKET_VARIABLE)
    assert await train_in_child(job, SETTINGS) == first


async def test_round_in_a_unit_is_killed_at_its_time_limit_and_leaves_nothing(service, job) -> None:
    training = msgspec.structs.replace(job.description.training, steps=1_000_000, epochs_per_round=0)
    endless = msgspec.structs.replace(job, description=msgspec.structs.replace(job.description, training=training))
    failure = await train_in_child(endless, msgspec.structs.replace(SETTINGS, time_limit_seconds=3.0))
    assert failure == TrainingFailure("worker passed its time limit of 3 s and was killed", out_of_time=True)
    assert running(service) == []


async def test_worker_in_a_unit_that_is_killed_is_a_failed_round_and_the_next_one_is_in_another(service, job) -> None:
    training = msgspec.structs.replace(job.description.training, steps=1_000_000, epochs_per_round=0)
    endless = msgspec.structs.replace(job, description=msgspec.structs.replace(job.description, training=training))
    worker, begun = TrainingWorker(SETTINGS), asyncio.Event()
    round_ = asyncio.ensure_future(worker.train(endless, lambda _: begun.set()))
    await begun.wait()
    for each in running(service):
        each.kill()
    failure = await round_
    assert isinstance(failure, TrainingFailure)
    assert "journalctl -u 'edge-agent-worker@*'" in failure.error
    assert isinstance(await worker.train(job), TrainingResult)
    await worker.end()


async def test_predictor_in_a_unit_answers_and_goes(service) -> None:
    bundle = load_bundle(BUNDLE)
    files = {name: BUNDLE / name for name in predicting_files(bundle.description)}
    version = ReadyVersion(0, bundle.hash, bundle.description, files, BUNDLE / "weights.safetensors")
    predictor = ResidentPredictor(SETTINGS, idle_seconds=3600.0)
    first = await predictor.scores(version, ROW.tobytes())
    assert await predictor.scores(version, ROW.tobytes()) == first
    assert len(running(service)) == 1
    await predictor.end()
    assert running(service) == []


async def test_without_its_socket_nothing_is_computed_in_the_agents_own_reach(job, tmp_path, children, monkeypatch):
    missing = tmp_path / "missing.sock"
    monkeypatch.setenv(SOCKET_VARIABLE, str(missing))
    failure = await train_in_child(job, SETTINGS)
    assert isinstance(failure, TrainingFailure)
    assert failure.error.startswith(f"{missing}: no worker was started (")
    assert "systemctl status edge-agent-worker.socket" in failure.error
    assert children.all() == []


async def test_worker_that_ends_before_its_first_word_is_a_failed_round(job, tmp_path, monkeypatch) -> None:
    path = tmp_path / "worker.sock"

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_unix_server(hang_up, path):
        monkeypatch.setenv(SOCKET_VARIABLE, str(path))
        failure = await train_in_child(job, SETTINGS)
    assert isinstance(failure, TrainingFailure)
    assert "no worker was started (the connection ended)" in failure.error


def test_program_that_no_release_has_is_refused_with_words() -> None:
    own_end, its_end = socket.socketpair()
    with own_end, its_end:
        asked = subprocess.Popen(UNIT_CHILD, stdin=its_end, stdout=its_end, stderr=subprocess.PIPE, text=True)
        assert HELLO.unpack(own_end.recv(HELLO.size)) == (asked.pid,)
        own_end.sendall(b"?")
        _, said = asked.communicate()
    assert asked.returncode == 1
    assert "asks for b'?', which is no program of this release" in said
