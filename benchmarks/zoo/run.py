"""Runs cases, in this process or in several: pooled training first, which is kept, then the fleets."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.zoo.case import Case, Length, Outcome, outcome_of, run_case
from benchmarks.zoo.fingerprints import CASES, POOLED, fingerprint, origin, sources
from benchmarks.zoo.pooled import Pooled, train_pooled
from benchmarks.zoo.results import Results
from benchmarks.zoo.tasks import Split, read_split


@dataclass(frozen=True, slots=True)
class Pool:
    """Pooled training of a task on the split of a seed; `folder` is its bundle, `kept` the file with what it gave."""

    task: str
    seed: int
    folder: Path
    data: Path
    steps: int
    kept: Path


@dataclass(frozen=True, slots=True)
class Job:
    """A case that is to be run."""

    case: Case
    pool: Pool
    length: Length
    fingerprint: str
    origin: str


def pool_of(task: str, seed: int, folder: Path, data: Path, steps: int) -> Pool:
    """What was trained before is found again where nothing that it follows from has changed."""
    key = fingerprint([folder.name, str(seed), str(steps), *sources(*POOLED)])
    return Pool(task, seed, folder, data, steps, folder.parent / f"{task}-pooled-{key}.json")


def run_all(cases: Sequence[tuple[Case, Pool]], length: Length, results: Results, processes: int) -> Iterator[Outcome]:
    """The outcome of each case, in order; those in `results` are taken from there, the others are added to it."""
    code, when = sources(*CASES), origin()
    jobs = [Job(case, pool, length, fingerprint([pool.kept.name, repr(length), *code]), when) for case, pool in cases]
    missing = [job for job in jobs if results.find(job.case, job.fingerprint) is None]
    with _mapping(processes) as every:
        for _ in every(pooled, dict.fromkeys(job.pool for job in missing)):
            pass
        made = iter(every(run, missing))
        for job in jobs:
            outcome: Outcome | None = results.find(job.case, job.fingerprint)
            if outcome is None:
                outcome = next(made)
                results.add(outcome)
            yield outcome


def pooled(pool: Pool) -> Pooled:
    """Train, or read what was trained before."""
    if not pool.kept.is_file():
        trained = train_pooled(pool.folder, _split(pool.task, pool.seed, pool.data), pool.steps)
        pool.kept.write_bytes(msgspec.json.encode(trained))
    return msgspec.json.decode(pool.kept.read_bytes(), type=Pooled)


def run(job: Job) -> Outcome:
    """Simulate a fleet."""
    case = job.case
    result, seconds = run_case(case, job.pool.folder, _split(case.task, case.seed, job.pool.data), job.length)
    return outcome_of(
        case, result, pooled(job.pool), fingerprint=job.fingerprint, origin=job.origin, cpu_seconds=seconds
    )


@lru_cache(maxsize=2)
def _split(task: str, seed: int, data: Path) -> Split:
    return read_split(task, seed, data)


@contextmanager
def _mapping(processes: int) -> Iterator[Callable[..., Iterable[Any]]]:
    if processes == 1:
        yield map
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as executor:
        yield executor.map
