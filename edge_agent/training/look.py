"""The child that looks at the newest samples: are they unlike earlier ones, and does the model worse on them?"""

import contextlib
import os
import sqlite3
import sys
from pathlib import Path

import msgspec

from bundle_runtime.runner import BundleRunner
from edge_agent.training.confinement import hold_open, limit, shut_in
from edge_agent.training.drift import compare
from edge_agent.training.features import FeaturesError, compute_features
from edge_agent.training.stored_sample_checks import UnfitSamplesError
from edge_agent.training.worker import RoundError, read_samples
from edge_agent.worker.look import Answer, Look, LookFailure, LookJob, read_job, write_answer
from fleet_host.child_process import die_with
from fleet_protocol.bundle_files import BACKBONE_FILE, verify_blob
from fleet_protocol.codec import device_model, read_model
from fleet_protocol.errors import ConfigurationError, ProtocolError

EXPECTED_ERRORS = (
    ConfigurationError,
    ProtocolError,
    RoundError,
    UnfitSamplesError,
    FeaturesError,
    sqlite3.DatabaseError,
    MemoryError,
    OSError,
)
"""What may keep samples from being looked at. Anything else is a defect, whose traceback the agent reports."""


def look(job: LookJob) -> Look:
    """Evaluate the stored samples, and compare the newest with the others.

    Raises:
        RoundError: there are not twice as many as are to be looked at.
    """
    task = job.description
    everything = msgspec.structs.replace(task, training=msgspec.structs.replace(task.training, validation_share=0.0))
    store = Path(job.sample_store)
    files = {name: Path(path) for name, path in job.files.items()}
    for name, path in files.items():
        verify_blob(name, path.read_bytes(), task.files[name])
    weights = device_model(read_model(Path(job.weights).read_bytes(), task, job.cluster), job.own, task)
    if task.backbone is None:
        samples = read_samples(store, everything).training
        shut_in(files.values(), None)
    else:
        with contextlib.closing(hold_open(store)):
            shut_in(files.values(), store)
            compute_features(store, task, files[BACKBONE_FILE], job.threads)
            samples = read_samples(store, everything).training
    if len(samples) < 2 * job.newest:
        raise RoundError(f"{len(samples)} samples are stored, {2 * job.newest} are needed to compare the newest")
    losses = BundleRunner(task, files, job.threads).evaluate_features(weights, samples).losses
    return compare(samples.inputs, losses, job.newest)


def answer_to(job: LookJob) -> Answer:
    """What was found, or why nothing was."""
    try:
        limit(job)
        return look(job)
    except EXPECTED_ERRORS as error:
        return LookFailure(f"{type(error).__name__}: {error}")


def main() -> None:
    """Serve, and end with the agent, whose process id is the one argument."""
    die_with(int(sys.argv[1]))
    serve()


def serve() -> None:
    """Read one job, write one answer; whatever else prints goes to standard error."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0) as channel:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        channel.write(write_answer(answer_to(read_job(sys.stdin.buffer.read()))))


if __name__ == "__main__":
    main()
