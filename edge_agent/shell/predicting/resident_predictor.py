"""Starts the predictor when something is asked, and ends it when nothing is: a sleeping agent has none."""

import asyncio
import contextlib
import os
import sys

import msgspec

from edge_agent.shell.versions.version_follower import ReadyVersion
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
from edge_agent.worker.warm_process import WORKER_ENVIRONMENT

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
        self._process: asyncio.subprocess.Process | None = None
        self._loaded = ""
        self._idle: asyncio.TimerHandle | None = None

    @property
    def runs(self) -> bool:
        """Whether the child is there."""
        return self._process is not None and self._process.returncode is None

    async def scores(self, version: ReadyVersion, inputs: bytes) -> dict[str, list[float]]:
        """The scores of one sample by each head, whose inputs are float32 in bytes.

        Raises:
            PredictionFailedError: the version can't be loaded, the child died, or took too long.
        """
        async with self._turn:
            self._stay()
            if not self.runs or self._loaded != version.weights.name:
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
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _stay(self) -> None:
        """For as long again from now on."""
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(self._idle_seconds, self._end_if_idle)

    def _end_if_idle(self) -> None:
        if self._process is not None and self._process.stdin is not None and not self._turn.locked():
            self._process.stdin.close()  # it ends by itself, and is started anew when asked
            self._process = None

    async def _start(self, version: ReadyVersion) -> None:
        settings = self._settings
        self._process = await asyncio.create_subprocess_exec(
            *PREDICTOR_COMMAND,
            str(os.getpid()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | WORKER_ENVIRONMENT,
        )
        job = PredictorJob(
            version.description,
            {name: str(path) for name, path in version.files.items()},
            str(version.weights),
            threads=settings.threads,
            nice=settings.nice,
            memory_limit_mib=settings.memory_limit_mib,
            cpu_limit_seconds=settings.cpu_limit_seconds,
        )
        self._loaded = version.weights.name
        self._write(write_job(job))

    async def _ask(self, inputs: bytes) -> dict[str, list[float]]:
        self._write(frame(inputs))
        if self._process is None or self._process.stdout is None:
            raise RuntimeError("the predictor was started without pipes")
        length = int.from_bytes(await self._process.stdout.readexactly(LENGTH_BYTES), "big")
        if length > MAX_ANSWER_BYTES:
            raise ConnectionResetError(f"an answer of {length} bytes")
        reply = read_reply(await self._process.stdout.readexactly(length))
        if isinstance(reply, Scores):
            return reply.values
        await self._end_after(reply)
        raise PredictionFailedError(reply.error)

    async def _end_after(self, failure: PredictionFailure) -> None:
        if failure.ends:
            await self.end()

    def _write(self, data: bytes) -> None:
        if self._process is None or self._process.stdin is None:
            raise RuntimeError("the predictor was started without pipes")
        self._process.stdin.write(data)
