"""Starts the worker as a child process, enforces its limits, and reports its verdict."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable

import msgspec

from edge_agent.worker.contract import (
    LENGTH_BYTES,
    Message,
    News,
    Progress,
    TrainingFailure,
    TrainingJob,
    Unconfined,
    Verdict,
    longest_message,
    read_message,
    write_job,
)
from edge_agent.worker.settings import WorkerSettings
from fleet_protocol.limits import KIB

WORKER_COMMAND = (sys.executable, "-P", "-m", "edge_agent.training.worker")
WORKER_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""numpy would keep 32 MB ready per core for threads that never run."""
SHARE_PERIOD_SECONDS = 0.2
MAX_ERROR_BYTES = 500
SKIPPED_BYTES = 64 * KIB
"""At a time, of what nobody reads."""

OnNews = Callable[[News], None]


class _MessageTooLongError(Exception):
    """Nothing of that message was read."""


def ignore_news(_news: News) -> None:
    """Ignore what comes before the verdict."""


async def train_in_child(job: TrainingJob, settings: WorkerSettings, on_news: OnNews = ignore_news) -> Verdict:
    """Run one round in a child process. It always ends: with a result, with a failure, or killed at its time limit.

    `on_news` is called with each message before the verdict.
    """
    started = asyncio.Event()
    process = await asyncio.create_subprocess_exec(
        *WORKER_COMMAND,
        str(os.getpid()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | WORKER_ENVIRONMENT,
    )
    try:
        async with asyncio.timeout(settings.time_limit_seconds), _limit_cpu_share(process, settings.cpu_share, started):
            exchanged = _exchange(process, job, on_news, started)
            verdict, errors = await asyncio.gather(exchanged, _read_errors(process))
            await process.wait()
    except TimeoutError:
        return TrainingFailure(f"worker passed its time limit of {settings.time_limit_seconds:g} s and was killed")
    finally:
        if process.returncode is None:
            await _kill(process)
    if verdict is not None:
        return verdict
    return TrainingFailure(
        f"worker ended with code {process.returncode} (memory limit {settings.memory_limit_mib} MiB): {errors!r}"
    )


async def _exchange(
    process: asyncio.subprocess.Process, job: TrainingJob, on_news: OnNews, started: asyncio.Event
) -> Verdict | None:
    """Send the job and read messages up to the verdict; None where the worker died before it.

    `started` is set with the first message.
    """
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the worker was started without pipes")
    with contextlib.suppress(ConnectionError):
        process.stdin.write(write_job(job))
        await process.stdin.drain()
    process.stdin.close()
    try:
        verdict = await _read_verdict(process.stdout, longest_message(job.description), on_news, started)
    except _MessageTooLongError as error:
        process.kill()
        verdict = TrainingFailure(f"{error}, and was killed")
    await _skip(process.stdout)
    return verdict


async def _read_verdict(
    stream: asyncio.StreamReader, longest: int, on_news: OnNews, started: asyncio.Event
) -> Verdict | None:
    while message := await _next_message(stream, longest):
        started.set()
        if not isinstance(message, Progress | Unconfined):
            return message
        on_news(message)
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
    except (asyncio.IncompleteReadError, msgspec.DecodeError):
        return None


async def _read_errors(process: asyncio.subprocess.Process) -> str:
    """The last `MAX_ERROR_BYTES` of its standard error."""
    words = b""
    while process.stderr and (more := await process.stderr.read(MAX_ERROR_BYTES)):
        words = (words + more)[-MAX_ERROR_BYTES:]
    return words.decode(errors="replace").strip()


async def _skip(stream: asyncio.StreamReader | None) -> None:
    """Read to the end, and keep nothing."""
    while stream and await stream.read(SKIPPED_BYTES):
        pass


async def _kill(process: asyncio.subprocess.Process) -> None:
    """End it, even if it is stopped; what it has written is read, as `wait` waits for the ends of its pipes."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await _skip(process.stdout)
    await _skip(process.stderr)
    await process.wait()


@contextlib.asynccontextmanager
async def _limit_cpu_share(
    process: asyncio.subprocess.Process, share: float, started: asyncio.Event
) -> AsyncIterator[None]:
    """Stop and continue the process so that it runs for `share` of each period. Its time limit runs on meanwhile.

    Not before it has `started`, and with that asked the kernel to end it with its agent: a stopped process that has not
    would stay for ever when the agent is killed.
    """

    async def alternate() -> None:
        await started.wait()
        while process.returncode is None:
            await asyncio.sleep(share * SHARE_PERIOD_SECONDS)
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep((1 - share) * SHARE_PERIOD_SECONDS)
            process.send_signal(signal.SIGCONT)

    alternating = asyncio.create_task(alternate()) if share < 1 else None
    try:
        yield
    finally:
        if alternating is not None:
            alternating.cancel()
            with contextlib.suppress(asyncio.CancelledError, ProcessLookupError):
                await alternating
