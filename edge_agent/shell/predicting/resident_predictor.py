"""Starts the predictor when something is asked, and ends it when nothing is: a sleeping agent has none."""

import asyncio
import hashlib
import sys

import msgspec

from edge_agent.shell.versions.version_follower import ReadyVersion
from edge_agent.worker.child import Program, RunningProcess, WorkerUnreachableError, end_child, start_child
from edge_agent.worker.contract import LENGTH_BYTES
from edge_agent.worker.prediction import (
    MAX_ANSWER_BYTES,
    PredictionFailure,
    PredictorJob,
    Scores,
    frame,
    read_reply,
    write_job,
)
from edge_agent.worker.settings import WorkerSettings
from fleet_protocol.cluster_plan import NO_CLUSTER

PREDICTOR_COMMAND = (sys.executable, "-P", "-m", "edge_agent.training.predictor")
IDLE_SECONDS = 30.0
"""Starting it takes as long as some hundred predictions; while it stays, it holds its libraries' memory."""


class PredictionFailedError(Exception):
    """There are no scores; says why."""


class ResidentPredictor:
    """At most one child, with one version loaded. It answers one sample after the other."""

    def __init__(self, settings: WorkerSettings, idle_seconds: float = IDLE_SECONDS) -> None:
        self._settings = settings
        self._idle_seconds = idle_seconds
        self._turn = asyncio.Lock()
        self._process: RunningProcess | None = None
        self._answers: asyncio.StreamReader | None = None
        self._questions: asyncio.StreamWriter | None = None
        self._loaded = "", NO_CLUSTER, b""
        self._idle: asyncio.TimerHandle | None = None

    @property
    def runs(self) -> bool:
        """Whether the child is there."""
        return self._process is not None and self._process.returncode is None

    async def scores(self, version: ReadyVersion, inputs: bytes) -> Scores:
        """The scores of one sample by each head, whose inputs are float32 in bytes.

        Raises:
            PredictionFailedError: the version can't be loaded, the child died, or took too long.
        """
        async with self._turn:
            self._stay()
            if not self.runs or self._loaded != _loaded(version):
                await self.end()
                await self._start(version)
            try:
                async with asyncio.timeout(self._settings.time_limit_seconds):
                    return await self._ask(inputs)
            except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError) as error:
                await self.end()
                memory = self._settings.memory_limit_mib
                raise PredictionFailedError(f"the predictor ended (memory limit {memory} MiB); ask again") from error
            except TimeoutError as error:
                await self.end()
                longest = self._settings.time_limit_seconds
                words = f"no answer within {longest:g} s; raise [worker] time_limit_seconds"
                raise PredictionFailedError(words) from error
            finally:
                self._stay()

    async def end(self) -> None:
        """End the child, if it is there; its memory is given back."""
        process, self._process = self._process, None
        if self._questions is not None:
            self._questions.close()
        if process is not None:
            await end_child(process)

    def _stay(self) -> None:
        """For as long again from now on."""
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(self._idle_seconds, self._end_if_idle)

    def _end_if_idle(self) -> None:
        if self._process is not None and self._questions is not None and not self._turn.locked():
            self._questions.close()  # it ends by itself, and is started anew when asked
            self._process = None

    async def _start(self, version: ReadyVersion) -> None:
        settings = self._settings
        try:
            child = await start_child(PREDICTOR_COMMAND, Program.PREDICTOR)
        except WorkerUnreachableError as error:
            raise PredictionFailedError(str(error)) from error
        self._process = child.process
        self._answers, self._questions = await asyncio.open_connection(sock=child.connection)
        job = PredictorJob(
            version.description,
            {name: str(path) for name, path in version.files.items()},
            str(version.weights),
            threads=settings.threads,
            nice=settings.nice,
            memory_limit_mib=settings.memory_limit_mib,
            cpu_limit_seconds=settings.cpu_limit_seconds,
            cluster=version.cluster,
            own=version.own,
        )
        self._loaded = _loaded(version)
        self._write(write_job(job))

    async def _ask(self, inputs: bytes) -> Scores:
        self._write(frame(inputs))
        if self._answers is None:
            raise RuntimeError("the predictor is not started")
        length = int.from_bytes(await self._answers.readexactly(LENGTH_BYTES), "big")
        if length > MAX_ANSWER_BYTES:
            raise ConnectionResetError(f"an answer of {length} bytes")
        reply = read_reply(await self._answers.readexactly(length))
        if isinstance(reply, Scores):
            return reply
        await self._end_after(reply)
        raise PredictionFailedError(reply.error)

    async def _end_after(self, failure: PredictionFailure) -> None:
        if failure.ends:
            await self.end()

    def _write(self, data: bytes) -> None:
        if self._questions is None:
            raise RuntimeError("the predictor is not started")
        self._questions.write(data)


def _loaded(version: ReadyVersion) -> tuple[str, int, bytes]:
    """What tells the model that a child has loaded from others; a hash stands for what the device keeps to itself."""
    return version.weights.name, version.cluster, hashlib.sha256(version.own).digest() if version.own else b""
