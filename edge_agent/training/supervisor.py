"""Starts the worker as a child process, holds it to its limits, and reports what became of it."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator

import msgspec

from edge_agent.configuration import WorkerSettings
from edge_agent.training.job import TrainingFailure, TrainingJob, Verdict, read_verdict, write_job

WORKER_COMMAND = (sys.executable, "-P", "-m", "edge_agent.training.worker")
WORKER_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""numpy would keep 32 MB ready per core for threads that never run."""
SHARE_PERIOD_SECONDS = 0.2
LAST_WORDS_CHARACTERS = 500


async def train_in_child(job: TrainingJob, settings: WorkerSettings) -> Verdict:
    """Run one round in a process of its own. It always ends: well, with a failure, or killed at its time limit."""
    process = await asyncio.create_subprocess_exec(
        *WORKER_COMMAND,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | WORKER_ENVIRONMENT,
    )
    try:
        async with asyncio.timeout(settings.time_limit_seconds), _held_to_share(process, settings.cpu_share):
            output, errors = await process.communicate(write_job(job))
    except TimeoutError:
        return TrainingFailure(f"worker passed its time limit of {settings.time_limit_seconds:g} s and was killed")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    with contextlib.suppress(msgspec.DecodeError):
        return read_verdict(output)
    last_words = errors.decode(errors="replace").strip()[-LAST_WORDS_CHARACTERS:]
    return TrainingFailure(
        f"worker ended with code {process.returncode} (memory limit {settings.memory_limit_mib} MiB): {last_words!r}"
    )


@contextlib.asynccontextmanager
async def _held_to_share(process: asyncio.subprocess.Process, share: float) -> AsyncIterator[None]:
    """Stop and continue the process so that it runs for `share` of each period."""

    async def alternate() -> None:
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
