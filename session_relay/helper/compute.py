"""The child that computes for a helper: reads a version and orders, answers steps, and contributes when it is asked.

Steps that wait are computed together (`session_relay.helper.core.middle`). It is confined like a device's worker, and
the kernel kills it when the helper's program ends.
"""

import os
import select
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from bundle_runtime.graph import GraphError
from edge_agent.training.compression import UpdateTooLargeError, pack, remember
from edge_agent.training.confinement import limit, shut_in
from edge_agent.training.rebuild import RebuildError, rebuild
from edge_agent.worker.contract import LENGTH_BYTES, TrainingResult, Unconfined
from fleet_host.child_process import die_with
from fleet_protocol.bundle_files import verify_blob
from fleet_protocol.codec import read_model
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.limits import KIB, MIB
from fleet_protocol.sessions.steps import StepRequest
from session_relay.helper.compute_contract import (
    ComputeFailure,
    ComputeJob,
    Contribute,
    Join,
    Learned,
    Leave,
    Message,
    NothingLearned,
    Order,
    Ready,
    Seen,
    Step,
    StepDone,
    frame,
    read_compute_job,
    read_order,
)
from session_relay.helper.core.answering import RefusingRunner, answers_of
from session_relay.helper.core.middle import Middle
from session_relay.helper.core.requests import Asked

STANDARD_INPUT = 0
READ_BYTES = 256 * KIB
EXPECTED_ERRORS = (
    RebuildError,
    GraphError,
    ConfigurationError,
    ProtocolError,
    UpdateTooLargeError,
    MemoryError,
    OSError,
)
"""What may keep a version from being computed. Anything else is a defect, whose traceback is in the helper's log."""

Send = Callable[[Message], None]


class HelperGoneError(Exception):
    """The helper wants no more of this process."""


class Orders:
    """The frames that come; several at once where several wait."""

    def __init__(self, source: int) -> None:
        """`source` is a file descriptor."""
        self._source = source
        self._held = bytearray()

    def next(self) -> bytes:
        """The next frame's message; waits for it.

        Raises:
            HelperGoneError: none comes any more.
        """
        while (message := self._take()) is None:
            self._read()
        return message

    def waiting(self) -> list[bytes]:
        """All messages that have come; waits for the first."""
        messages = [self.next()]
        while True:
            if (message := self._take()) is not None:
                messages.append(message)
            elif select.select([self._source], [], [], 0)[0]:
                self._read()
            else:
                return messages

    def _take(self) -> bytes | None:
        end = LENGTH_BYTES + int.from_bytes(self._held[:LENGTH_BYTES], "big")
        if len(self._held) < max(end, LENGTH_BYTES):
            return None
        message = bytes(self._held[LENGTH_BYTES:end])
        del self._held[:end]
        return message

    def _read(self) -> None:
        more = os.read(self._source, READ_BYTES)
        if not more:
            raise HelperGoneError
        self._held += more


class Computation:
    """One version's middle, and what comes in for it."""

    def __init__(self, job: ComputeJob, send: Send) -> None:
        """Load and check it, and be confined before a graph is loaded.

        Raises:
            RebuildError: the weights came packed and can't be unpacked.
            GraphError, ConfigurationError, ProtocolError, OSError: a file is not what the task says.
        """
        task = job.description
        if task.split is None:
            raise ConfigurationError(f"the task {task.task} has no `split`: no helper takes part in it")
        files = {name: Path(path) for name, path in job.files.items()}
        if job.packed is not None:
            rebuild(job.packed, Path(job.weights), task.version.parameters)
        weights = read_model(Path(job.weights).read_bytes(), task, job.cluster)
        for name, path in files.items():
            verify_blob(name, path.read_bytes(), task.files[name])
        if lacking := shut_in(files.values(), None):
            send(Unconfined(lacking))
        runner = RefusingRunner(task, files, job.blocks, job.threads)
        generator = np.random.default_rng()
        self._task, self._plan, self._cluster, self._send = task, task.split, job.cluster, send
        self._middle = Middle(task, task.split, runner, weights, kept_bytes=job.kept_mib * MIB, generator=generator)
        self._requests = msgspec.msgpack.Decoder(StepRequest)
        send(Ready())

    def take(self, orders: list[Order]) -> None:
        """Follow all orders.

        Raises:
            UpdateTooLargeError: what was learned is more than the task takes.
        """
        for order in orders:
            if isinstance(order, Join):
                self._middle.open(order.session, self._plan.cut(order.cut), order.samples)
        self._answer([order for order in orders if isinstance(order, Step)])
        for order in orders:
            if isinstance(order, Leave):
                self._send(self._seen(order.session))
                self._middle.close(order.session)
            elif isinstance(order, Contribute):
                self._send(self._contribution(order))

    def _answer(self, steps: list[Step]) -> None:
        read: list[tuple[Step, Asked]] = []
        for step in steps:
            try:
                read.append((step, Asked(step.session, self._requests.decode(step.request))))
            except msgspec.DecodeError as error:
                self._send(StepDone(step.session, step.number, b"", f"the request is none ({error})"))
        answers = answers_of(self._middle, [asked for _, asked in read])
        for (step, _), answer in zip(read, answers, strict=True):
            encoded = msgspec.msgpack.encode(answer)
            self._send(StepDone(step.session, step.number, encoded, refused=answer.problem))

    def _seen(self, session: bytes) -> Seen:
        found = self._middle.take_activation(session)
        return Seen(session, found.rows, found.mean.astype("<f4").tobytes()) if found else Seen(session)

    def _contribution(self, order: Contribute) -> Learned:
        made = self._middle.take_contribution()
        if made is None:
            return NothingLearned()
        held = tuple(made.held)
        memory = remember(self._task, order.residual, order.returned, order.life)
        packed = pack(made.delta, memory, self._task, order.seed, held)
        return TrainingResult(
            packed=packed.data,
            residual=memory.state(),
            samples=max(held),
            steps=made.steps,
            trained_through=0,
            loss=0.0,
            life=memory.life,
            forgotten=packed.forgotten,
            held=held,
            cluster=self._cluster,
        )


def compute(job: ComputeJob, orders: Orders, send: Send) -> ComputeFailure:
    """Serve until something is in the way; says what.

    Raises:
        HelperGoneError: the helper wants no more.
    """
    try:
        limit(job)
        computation = Computation(job, send)
        while True:
            computation.take([read_order(each) for each in orders.waiting()])
    except EXPECTED_ERRORS as error:
        words = (
            f"passed its memory limit of {job.memory_limit_mib} MiB" if isinstance(error, MemoryError) else str(error)
        )
        return ComputeFailure(words, isinstance(error, RebuildError))


def main() -> None:
    """Compute, and end with the helper's program, whose process id is the one argument."""
    die_with(int(sys.argv[1]))
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0) as channel:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        orders = Orders(STANDARD_INPUT)

        def send(message: Message) -> None:
            channel.write(frame(message))

        try:
            send(compute(read_compute_job(orders.next()), orders, send))
        except (HelperGoneError, BrokenPipeError):
            return


if __name__ == "__main__":
    main()
