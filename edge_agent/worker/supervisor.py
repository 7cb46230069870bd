"""Runs rounds in the warm worker, enforces their limits, and reports their verdicts."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Protocol

import msgspec

from edge_agent.worker.child import WorkerUnreachableError
from edge_agent.worker.contract import (
    LENGTH_BYTES,
    Message,
    News,
    Reply,
    StepAsked,
    TrainingFailure,
    TrainingJob,
    Verdict,
    framed,
    longest_message,
    read_message,
    write_frame,
    write_job,
)
from edge_agent.worker.settings import WorkerSettings
from edge_agent.worker.warm_process import RoundProcess, WarmProcess, last_words
from fleet_protocol.limits import KIB

SKIPPED_BYTES = 64 * KIB
"""At a time, of what nobody reads."""

OVERTIME_SECONDS = 60.0
"""After its time limit, in which a worker that is killed ends; a round that is still there then never ends."""

OnNews = Callable[[News], None]


class StepHelper(Protocol):
    """Who has a helper compute what a worker asks for."""

    def listen(self, reply: Callable[[Reply], None]) -> None:
        """A worker has started that asks; `reply` is how it is answered."""

    def ask(self, asked: StepAsked) -> None:
        """The worker asks for a step; raises `OverloadError` where it has asked for too many."""


class OverloadError(Exception):
    """A worker has asked for more steps at once than it may, or for one in a round without a helper."""


class NoHelper:
    """Of a round that the device trains alone."""

    def listen(self, reply: Callable[[Reply], None]) -> None:
        """Nothing is ever answered."""

    def ask(self, asked: StepAsked) -> None:
        """Raise `OverloadError`: nobody is there to ask."""
        raise OverloadError(f"worker asked a helper for a step ({len(asked.request)} bytes) in a round without one")


class _MessageTooLongError(Exception):
    """Nothing of that message was read."""


def ignore_news(_news: News) -> None:
    """Ignore what comes before the verdict."""


async def train_in_child(
    job: TrainingJob, settings: WorkerSettings, on_news: OnNews = ignore_news, helper: StepHelper | None = None
) -> Verdict:
    """Run one round, as `TrainingWorker.train`, in a worker that ends with it."""
    worker = TrainingWorker(msgspec.structs.replace(settings, stay_seconds=0))
    try:
        return await worker.train(job, on_news, helper)
    finally:
        await worker.end()


class TrainingWorker:
    """At most one child, which stays for a while after each round, so that the next one finds its libraries loaded."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._warm: WarmProcess | None = None
        self._spent_in_units = 0
        self.ends_by: float | None = None
        """When the round that runs must have ended, on the event loop's clock."""
        self._leaving: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def spent_milliseconds(self) -> int:
        """Processor time of rounds that the kernel does not count as a child's: those whose worker is still there, and
        all that ran in units.
        """
        return self._spent_in_units + (self._warm.spent_milliseconds if self._warm else 0)

    async def train(self, job: TrainingJob, on_news: OnNews = ignore_news, helper: StepHelper | None = None) -> Verdict:
        """Run one round. It always ends: with a result, with a failure, or killed at its time limit.

        `on_news` is called with what the worker tells before the verdict, `helper` is asked for what it asks. A round
        that ends badly takes its worker with it.
        """
        if self._leaving is not None:
            self._leaving.cancel()
        code, errors, verdict = 1, "", None
        limit = self._settings.time_limit_seconds
        self.ends_by = asyncio.get_running_loop().time() + limit + OVERTIME_SECONDS
        try:
            async with asyncio.timeout(limit):
                if self._warm is None or not self._warm.runs:
                    await self.end()
                    self._warm = await WarmProcess.start()
                verdict, errors, code = await self._run_round(self._warm, job, on_news, helper or NoHelper())
        except WorkerUnreachableError as error:
            return TrainingFailure(str(error))
        except TimeoutError:
            return TrainingFailure(f"worker passed its time limit of {limit:g} s and was killed", out_of_time=True)
        finally:
            if verdict is None or code:
                await self.end()
            else:
                self._stay()
            self.ends_by = None
        if verdict is not None:
            return verdict
        memory = self._settings.memory_limit_mib
        return TrainingFailure(f"worker ended with code {code} (memory limit {memory} MiB): {errors!r}")

    async def end(self) -> None:
        """End the worker, if it is there, and the round that it runs; its memory is given back."""
        if self._leaving is not None:
            self._leaving.cancel()
        warm, self._warm = self._warm, None
        if warm is not None:
            await warm.end()
            self._spent_in_units += warm.spent_milliseconds

    def _stay(self) -> None:
        loop = asyncio.get_running_loop()
        self._leaving = loop.call_later(self._settings.stay_seconds, self._leave)

    def _leave(self) -> None:
        ending = asyncio.ensure_future(self.end())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _run_round(
        self, warm: WarmProcess, job: TrainingJob, on_news: OnNews, helper: StepHelper
    ) -> tuple[Verdict | None, str, int]:
        """Its verdict, None where its process died before; the last of what that said; and its exit code."""
        process = await warm.order(self._settings.cpu_share)
        errors = asyncio.ensure_future(last_words(process.errors))
        try:
            await _send(process, job)
            helper.listen(partial(_reply, process))
            verdict = await _read_verdict(process.output, longest_message(job.description, job.gossip), on_news, helper)
            await _skip(process.output)
            code = await warm.report()
            return verdict, await errors or await warm.last_words(), code
        except (_MessageTooLongError, OverloadError) as error:
            return TrainingFailure(f"{error}, and was killed"), "", 1
        finally:
            errors.cancel()
            process.close()


async def _send(process: RoundProcess, job: TrainingJob) -> None:
    with contextlib.suppress(ConnectionError):
        process.job.write(framed(write_job(job)))
        await process.job.drain()


def _reply(process: RoundProcess, reply: Reply) -> None:
    """What the worker has asked for is bounded, and with it what waits here until it is read."""
    if not process.job.is_closing():
        process.job.write(write_frame(reply))


async def _read_verdict(
    stream: asyncio.StreamReader, longest: int, on_news: OnNews, helper: StepHelper
) -> Verdict | None:
    while message := await _next_message(stream, longest):
        if isinstance(message, StepAsked):
            helper.ask(message)
        elif isinstance(message, News):
            on_news(message)
        else:
            return message
    return None


async def _next_message(stream: asyncio.StreamReader, longest: int) -> Message | None:
    """The next frame; None where the worker died in it or before it.

    Raises:
        _MessageTooLongError: it has more than `longest` bytes: a bundle has taken the worker over.
    """
    try:
        length = int.from_bytes(await stream.readexactly(LENGTH_BYTES), "big")
        if length > longest:
            raise _MessageTooLongError(f"worker began a message of {length} bytes, at most {longest} are read")
        return read_message(await stream.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError):
        return None


async def _skip(stream: asyncio.StreamReader) -> None:
    """Read to the end, and keep nothing."""
    with contextlib.suppress(ConnectionError):
        while await stream.read(SKIPPED_BYTES):
            pass
