"""The training worker: a job on standard input, a verdict on standard output, then it exits and its memory with it."""

import os
import resource
import sqlite3
import sys
from pathlib import Path

import numpy as np

from edge_agent.sample_store import fitting
from edge_agent.training.compression import pack, remember
from edge_agent.training.engine import Rates, Samples, plan_batches
from edge_agent.training.job import (
    TrainingFailure,
    TrainingJob,
    TrainingResult,
    Verdict,
    read_job,
    write_verdict,
)
from edge_agent.training.onnx_step import OnnxStepEngine
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.codec import read_weights
from fleet_protocol.errors import ProtocolError
from fleet_protocol.limits import MIB


class RoundError(Exception):
    """The round can't be finished; says why."""


def run_round(job: TrainingJob) -> TrainingResult:
    """Train, then compress what was learned together with what earlier updates left behind.

    Raises:
        RoundError: no usable samples, or the training diverged.
        ProtocolError: the weights file does not fit the task.
    """
    task = job.description
    samples = read_samples(Path(job.sample_store), task)
    weights = read_weights(Path(job.weights).read_bytes(), task.parameters)
    plan = plan_batches(len(samples.labels), task.training.steps, task.training.batch_size, job.seed)
    engine = OnnxStepEngine(Path(job.train_graph), job.threads)
    trained, losses = engine.train(weights, samples, plan, Rates.planned(task.training))
    memory = remember(task, job.residual, job.returned)
    total = memory.offer(trained - weights)
    if not (np.isfinite(losses).all() and np.isfinite(total).all()):
        raise RoundError(
            f"training diverged at step {int(np.argmin(np.isfinite(losses)))} of {losses.size} (learning rate"
            f" {task.training.learning_rate:g}, inputs {samples.inputs.min():g} to {samples.inputs.max():g})"
        )
    packed = pack(total, memory, task, job.seed)
    return TrainingResult(
        packed=packed,
        residual=memory.state(),
        samples=len(samples.labels),
        steps=task.training.steps,
        trained_through=samples.newest,
        loss=float(losses.mean()),
    )


def read_samples(path: Path, task: TaskDescription) -> Samples:
    """All stored samples of a task that fit its schema.

    Raises:
        RoundError: there is none.
    """
    with sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True) as connection:
        condition, sizes = fitting(task)
        query = f"SELECT id, inputs, label FROM samples WHERE task = ? AND {condition}"  # noqa: S608 - a constant
        rows = connection.execute(query, (task.task, *sizes)).fetchall()
    if not rows:
        raise RoundError(f"no stored sample of {task.task} fits its schema")
    inputs = np.frombuffer(b"".join(row[1] for row in rows), np.float32).reshape(len(rows), *task.input.shape)
    if not np.isfinite(inputs).all():
        raise RoundError(f"stored samples of {task.task} hold NaN or infinity")
    if task.label.kind == "class":
        return Samples(inputs, np.array([row[2] for row in rows], np.int64), rows[-1][0])
    labels = np.frombuffer(b"".join(row[2] for row in rows), np.float32).reshape(len(rows), task.label.outputs)
    return Samples(inputs, labels, rows[-1][0])


def confine(job: TrainingJob) -> None:
    """Take on the job's nice level and memory limit; what is over the limit fails as MemoryError."""
    os.nice(job.nice)
    limit = job.memory_limit_mib * MIB
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def main() -> None:
    """Read one job, write one verdict."""
    verdict: Verdict
    try:
        job = read_job(sys.stdin.buffer.read())
        confine(job)
        verdict = run_round(job)
    except (RoundError, ProtocolError, MemoryError) as error:
        verdict = TrainingFailure(str(error) or type(error).__name__)
    sys.stdout.buffer.write(write_verdict(verdict))


if __name__ == "__main__":
    main()
