"""The shipped training worker, run by any Python on a bundle and samples of the test's choice."""

import os
import subprocess
from pathlib import Path

import numpy as np

from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.worker.contract import (
    LENGTH_BYTES,
    EngineName,
    Message,
    Progress,
    TrainingJob,
    Unconfined,
    Verdict,
    files_for,
    framed,
    read_message,
    write_job,
)
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE, WEIGHTS_FILE
from fleet_protocol.split_plan import WHOLE, Cut

TREE = Path(__file__).parents[2]
ORT_PYTHON = TREE / ".venv-ort" / "bin" / "python"
"""Has onnxruntime-training-cpu; `make .venv-ort/.ready` makes it."""


def make_job(
    bundle: Path, store: Path, engine: EngineName = "onnx-step", *, memory_limit_mib: int = 1024, cut: Cut = WHOLE
) -> TrainingJob:
    """A first round on a bundle's own weights; with a `cut`, the part of it that is the device's."""
    description = parse_description((bundle / DESCRIPTION_FILE).read_bytes())
    return TrainingJob(
        description=description,
        engine=engine,
        files={name: str(bundle / name) for name in files_for(engine, description, cut)},
        weights=str(bundle / WEIGHTS_FILE),
        sample_store=str(store),
        residual=b"",
        returned=[],
        seed=0,
        life=1,
        threads=1,
        nice=0,
        memory_limit_mib=memory_limit_mib,
        cpu_limit_seconds=600,
        cut=cut,
    )


def store_samples(path: Path, task: str, inputs: np.ndarray, labels: np.ndarray) -> Path:
    """A sample store with these; labels int64 [N], or float32 [N, C]."""
    store = SampleStore(path, len(inputs))
    for values, label in zip(inputs, labels, strict=True):
        store.add(task, values.tobytes(), int(label) if labels.ndim == 1 else label.tobytes())
    store.close()
    return path


def run_worker(python: Path, job: TrainingJob) -> tuple[list[Progress], Verdict]:
    """What the worker says, as a process of this Python's."""
    command = [str(python), "-P", "-m", "edge_agent.training.worker", str(os.getpid())]
    environment = os.environ | {"PYTHONPATH": str(TREE)}
    ended = subprocess.run(command, input=framed(write_job(job)), capture_output=True, check=False, env=environment)
    messages = _messages(ended.stdout)
    assert messages, ended.stderr.decode()
    *news, verdict = messages
    assert not isinstance(verdict, Progress | Unconfined), ended.stderr.decode()
    assert all(isinstance(message, Progress | Unconfined) for message in news)
    return [message for message in news if isinstance(message, Progress)], verdict


def _messages(stream: bytes) -> list[Message]:
    messages = []
    while stream:
        length = int.from_bytes(stream[:LENGTH_BYTES], "big")
        messages.append(read_message(stream[LENGTH_BYTES : LENGTH_BYTES + length]))
        stream = stream[LENGTH_BYTES + length :]
    return messages
