"""The training worker: reads a job from standard input, writes progress and a verdict to standard output, and exits.

The exit gives its memory back. The kernel kills it when what has started it ends: the warm worker, which forks it.
"""

import contextlib
import dataclasses
import math
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

import msgspec
import numpy as np

from bundle_runtime.blocks import BlockRunner
from bundle_runtime.runner import BundleRunner
from bundle_runtime.samples import Samples
from edge_agent.core.budget_rules import SpentBudget, rests
from edge_agent.core.sample_budget import steps_of_round
from edge_agent.training.agent_pipe import AgentPipe
from edge_agent.training.confinement import hold_open, limit, shut_in
from edge_agent.training.copies import chosen_cluster
from edge_agent.training.engine import EngineError, TrainingEngine
from edge_agent.training.engines import make_engine
from edge_agent.training.features import FeaturesError, compute_features
from edge_agent.training.gossip import gossip_round
from edge_agent.training.own_limits import take_part
from edge_agent.training.rebuild import RebuildError, rebuild
from edge_agent.training.round import DivergedError, Earlier, Mask
from edge_agent.training.split.engine import SplitEngine
from edge_agent.training.split.exchange import Exchange, SessionFailedError
from edge_agent.training.split.own_weights import read_own_weights
from edge_agent.training.stored_sample_checks import UnfitSamplesError, check_samples
from edge_agent.training.stored_samples import StoredSamples, divide, identities
from edge_agent.worker.contract import (
    GossipRound,
    Message,
    Progress,
    RebuildFailure,
    TrainingFailure,
    TrainingJob,
    TrainingResult,
    Unconfined,
    Verdict,
    Withheld,
    read_frame,
    read_job,
    write_frame,
)
from edge_agent.worker.damage import is_unusable
from edge_agent.worker.usable_samples import BUDGETS_OF_TASK, FIRST_NUMBERS_OF_TASK, rows_to_train_on
from fleet_host.child_process import die_with
from fleet_host.seal import encryptions_of_zero
from fleet_protocol.bundle_files import BACKBONE_FILE, EVALUATE_FILE, KEY_HOLDER_FILE, PREDICT_FILE, verify_blob
from fleet_protocol.codec import ClusterView, read_model, read_weights
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.privacy.encryption_plan import chunks_of
from fleet_protocol.split_plan import device_blocks
from fleet_protocol.task_description import TaskDescription, split_files

Send = Callable[[Message], None]


class StopAskedError(BaseException):
    """The round is asked to end; comes out of whatever it does, between two calls of a graph."""


class RoundError(Exception):
    """The round can't be finished; says why."""


EXPECTED_ERRORS = (
    RebuildError,
    UnfitSamplesError,
    DivergedError,
    RoundError,
    FeaturesError,
    SessionFailedError,
    EngineError,
    ConfigurationError,
    ProtocolError,
    sqlite3.DatabaseError,
    UnicodeDecodeError,
    MemoryError,
)
"""What may end a round. Anything else is a defect, whose traceback the agent reports."""

ShutIn = Callable[[list[Path], Path | None], None]
"""Called once before a graph is loaded, with the files that are opened after that, and the sample store if it is."""


def run_round(
    job: TrainingJob, send: Send, shut_in: ShutIn, exchange: Exchange | None = None
) -> TrainingResult | Withheld | GossipRound:
    """Train, then compress the delta together with the error feedback of earlier rounds. `exchange` is with the helper
    of the blocks that the job's cut leaves to one.

    Raises:
        RebuildError: the weights came packed and can't be unpacked.
        RoundError: no usable samples.
        DivergedError: loss or weights are no longer finite.
        UnfitSamplesError: some stored samples are not what the task takes.
        FeaturesError: the backbone's features can't be computed or kept.
        SessionFailedError: the helper is gone, or answers wrong.
        EngineError, ConfigurationError: the engine can't run here, or not on this bundle.
        ProtocolError: a file is not what the task says.
    """
    task = job.description
    store = Path(job.sample_store)
    files = {name: Path(path) for name, path in job.files.items()}
    send(Progress("reading", 0, task.training.steps, None))
    if job.packed is not None:
        rebuild(job.packed, Path(job.weights), task.version.parameters)
    mask = _mask_of(job, files)
    version = _version_of(job)
    last_weights = _last_weights(job)
    if task.backbone is None:
        stored, computed = _samples_of(job), 0
        shut_in(list(files.values()), None)
    else:
        with contextlib.closing(hold_open(store)):
            shut_in(list(files.values()), store)
            computed = compute_features(store, task, files[BACKBONE_FILE], job.threads, samples_alone=job.samples_alone)
            stored = _samples_of(job)
    engine = _engine_of(job, files, exchange)
    for name in files.keys() & {EVALUATE_FILE, PREDICT_FILE}:
        verify_blob(name, files[name].read_bytes(), task.files[name])
    runner = BundleRunner(task, files, job.threads)
    cluster = chosen_cluster(
        version, task, stored.training, job.cluster, draw=(job.life, job.seed), evaluate=runner.evaluate_features
    )
    weights = _weights_of(job, version, cluster)
    steps = steps_of_round(task.training, len(stored.training))

    def on_progress(done: int, losses: FloatVector) -> None:
        mean = float(losses.mean())
        loss = mean if math.isfinite(mean) else None
        send(Progress("training", done, steps, loss))
        if done == steps:
            send(Progress("compressing", steps, steps, loss))

    earlier = Earlier(
        job.residual,
        job.returned,
        job.seed,
        job.life,
        job.epochs,
        job.usual_norm,
        last_weights,
        prompting=job.prompting,
        told=job.told,
        mask=mask,
        own=job.own,
        drift=job.drift,
        versions_since=job.versions_since,
    )

    def train(task: TaskDescription, weights: FloatVector) -> TrainingResult | Withheld:
        return take_part(
            engine,
            weights,
            stored,
            task,
            earlier,
            evaluate=runner.evaluate_features,
            predict=runner.predict_features,
            on_progress=on_progress,
            cut=job.cut,
        )

    if job.gossip is not None:
        return gossip_round(job, job.gossip, weights, train)
    result = train(task, weights)
    if isinstance(result, Withheld):
        return result
    return msgspec.structs.replace(result, features_computed=computed, cluster=cluster)


def _mask_of(job: TrainingJob, files: Mapping[str, Path]) -> Mask | None:
    """What masks the round's update; it is loaded before the process is shut in, and by no other task's. So is what
    encrypts it, where its cohort has a key holder.
    """
    if job.cohort is None:
        if job.description.masks is not None:
            raise RoundError("no cohort is open, and its task's updates never leave the device without masks")
        return None
    from nacl.utils import random  # noqa: PLC0415 - see above

    from edge_agent.training.masked_update import checked_cohort, encryption_key, masked_result  # noqa: PLC0415 - see above

    cohort = checked_cohort(job.cohort, job.description)
    if KEY_HOLDER_FILE in files and (key := encryption_key(files[KEY_HOLDER_FILE].read_bytes(), job.description)):
        zeros = encryptions_of_zero(key, chunks_of(cohort.manifest.entries))
        cohort = dataclasses.replace(cohort, zeros=zeros)
    return lambda delta, memory: masked_result(delta, memory, cohort, random)


def _engine_of(job: TrainingJob, files: Mapping[str, Path], exchange: Exchange | None) -> TrainingEngine:
    task = job.description
    if task.split is None or not job.cut.helper:
        return make_engine(job.engine, files, task, job.threads, samples_alone=job.samples_alone)
    if exchange is None:
        raise EngineError(f"cut {job.cut.name} leaves blocks to a helper, and there is none to ask")
    for name in split_files(task, device_blocks(task.split, job.cut)):
        verify_blob(name, files[name].read_bytes(), task.files[name])
    runner = BlockRunner(task, files, device_blocks(task.split, job.cut), job.threads)
    unknown = np.random.default_rng()  # to the helper, which knows the round's seed
    return SplitEngine(task, task.split, job.cut, runner, exchange=exchange, generator=unknown, clock=time.monotonic)


def _samples_of(job: TrainingJob) -> StoredSamples:
    """None is kept for validation where a helper takes part: the trained model is nowhere whole."""
    task = job.description
    share = 0.0 if job.cut.helper else task.training.validation_share
    store = Path(job.sample_store)
    return read_samples(store, task, job.trained_through, validation_share=share, among=job.among, budgets=job.budgets)


def _version_of(job: TrainingJob) -> FloatVector:
    """f32[V]; of a round that a helper takes part in, f32[P] of the device's blocks, and 0 for the others."""
    task, path = job.description, Path(job.weights)
    if task.split is None or not job.cut.helper:
        return read_weights(path.read_bytes(), task.version.parameters)
    return read_own_weights(path, task, device_blocks(task.split, job.cut), job.cluster)


def _weights_of(job: TrainingJob, version: FloatVector, cluster: int) -> FloatVector:
    """Those of a cluster's devices, f32[P], out of what `_version_of` has read; of a distribution all, f32[P + H]."""
    is_whole = job.cut.helper or job.description.posterior is not None
    return version if is_whole else ClusterView.of(job.description, cluster).weights(version)


def _last_weights(job: TrainingJob) -> FloatVector | None:
    """Those of the device's last round; a file that is damaged costs the rule that needs them one round."""
    if not job.last_weights:
        return None
    with contextlib.suppress(ProtocolError, OSError):
        return read_model(Path(job.last_weights).read_bytes(), job.description, job.cluster)
    return None


def read_samples(
    path: Path,
    task: TaskDescription,
    trained_through: int = 0,
    *,
    validation_share: float = 0.0,
    among: tuple[int, int] | None = None,
    budgets: Sequence[SpentBudget] = (),
) -> StoredSamples:
    """All stored samples of a task that fit its schema, as training takes them: features where it has a backbone.

    Those with an id above `trained_through` are unseen; a `validation_share` of all is kept for validation.
    With `among`, only those are read that came behind the first id, up to the second, and those of which one of
    `budgets` is spent rest; none is kept for validation then.

    Raises:
        RoundError: there is none.
        UnfitSamplesError: some have the right size and values that the task does not take.
    """
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute("BEGIN")  # one state of the file, whatever comes in meanwhile
        rows = connection.execute(*rows_to_train_on(task)).fetchall()
        named = dict(connection.execute(BUDGETS_OF_TASK, (task.task,))) if among else {}
        first = dict(connection.execute(FIRST_NUMBERS_OF_TASK, (task.task,))) if among else {}
        stored = connection.execute("SELECT COUNT(*) FROM samples WHERE task = ?", (task.task,)).fetchone()[0]
    if among is not None:
        rows = [row for row in rows if among[0] < first.get(row[0], row[0]) and row[0] <= among[1]]
    if not rows:
        raise RoundError(f"no stored sample of {task.task} fits its schema ({stored} are stored)")
    inputs = np.frombuffer(b"".join(row[1] for row in rows), np.float32).reshape(len(rows), *task.trained_input.shape)
    if task.label.is_index:
        samples = Samples(inputs, np.array([row[2] for row in rows], np.int64), rows[-1][0])
    else:
        labels = np.frombuffer(b"".join(row[2] for row in rows), np.float32).reshape(len(rows), task.label.size)
        samples = Samples(inputs, labels, rows[-1][0])
    numbers = [row[0] for row in rows]
    check_samples(samples, numbers, task)
    unseen = np.array(numbers) > trained_through
    divided = divide(samples, identities(samples), unseen, validation_share)
    if among is None:
        return divided
    is_class = task.label.is_index
    resting = [
        rests(budgets, first.get(number, number), named.get(number, ""), row[2] if is_class else None)
        for number, row in zip(numbers, rows, strict=True)
    ]
    return replace(divided, resting=np.array(resting))


def verdict_of(job: TrainingJob, send: Send, exchange: Exchange) -> Verdict:
    """The round's result, or what became of it."""

    def confine(readable: list[Path], store: Path | None) -> None:
        if lacking := shut_in(readable, store):
            send(Unconfined(lacking))

    try:
        limit(job)
        return run_round(job, send, confine, exchange)
    except EXPECTED_ERRORS as error:
        return _failure_of(error, job)


def _failure_of(error: Exception, job: TrainingJob) -> Verdict:
    """What is reported of one of the expected errors."""
    if isinstance(error, RebuildError):
        return RebuildFailure(str(error))
    said = str(error)
    if isinstance(error, sqlite3.DatabaseError | UnicodeDecodeError):
        said = f"the sample store can't be read: {error}"
    if isinstance(error, MemoryError):
        said = (
            f"worker passed its memory limit of {job.memory_limit_mib} MiB ({said or 'allocation failed'});"
            " raise [worker] memory_limit_mib, lower [store] maximum_samples, or export the task with a smaller"
            " batch_size"
        )
    return TrainingFailure(
        said,
        unfit=error.unfit if isinstance(error, UnfitSamplesError) else [],
        diverged=isinstance(error, DivergedError),
        store_damaged=isinstance(error, sqlite3.DatabaseError | UnicodeDecodeError) and is_unusable(error),
        out_of_memory=isinstance(error, MemoryError),
        helper_lost=isinstance(error, SessionFailedError),
        drift=error.drift if isinstance(error, DivergedError) else None,
    )


def main() -> None:
    """Run one round as a program of its own. The one argument is the process id of what has started it."""
    die_with(int(sys.argv[1]))
    work()


def work() -> None:
    """Read one job; write frames, the verdict last, or none where SIGTERM asks for an end. Whatever else prints goes to
    standard error.
    """
    signal.signal(signal.SIGTERM, _end_round)
    with contextlib.suppress(StopAskedError), os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0) as channel:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        job = read_job(read_frame(sys.stdin.buffer))

        def send(message: Message) -> None:
            channel.write(write_frame(message))

        send(verdict_of(job, send, AgentPipe(sys.stdin.buffer, send)))


def _end_round(_number: int, _frame: FrameType | None) -> None:
    raise StopAskedError


if __name__ == "__main__":
    main()
