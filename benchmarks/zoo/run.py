"""Runs cases, in this process or in several: pooled training first, which is kept, then the fleets."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.zoo.case import Case, Length, Outcome, outcome_of, run_case
from benchmarks.zoo.fingerprints import CASES, POOLED, RULE_SOURCES, fingerprint, origin, sources
from benchmarks.zoo.pooled import Pooled, train_pooled
from benchmarks.zoo.results import Results
from benchmarks.zoo.rules import RULES
from benchmarks.zoo.tasks import Split, read_split
from bundle_runtime.bundle_folder import load_bundle


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
class Entry:
    """A case, the bundle that its fleet trains, and what it is measured against."""

    case: Case
    folder: Path
    pool: Pool


@dataclass(frozen=True, slots=True)
class Job:
    """An entry that is to be run."""

    entry: Entry
    length: Length
    fingerprint: str
    origin: str


UNPOOLED: Final = ("aggregation", "update", "downlink", "sending")
"""Plans of a task that pooled training knows nothing of."""


def pool_of(task: str, seed: int, folder: Path, data: Path, steps: int) -> Pool:
    """What was trained before is found again where nothing that it follows from has changed."""
    description = msgspec.to_builtins(load_bundle(folder).description)
    trained = msgspec.json.encode({name: plan for name, plan in description.items() if name not in UNPOOLED})
    key = fingerprint([trained.decode(), str(seed), str(steps), *sources(*POOLED)])
    return Pool(task, seed, folder, data, steps, folder.parent / f"{task}-pooled-{key}.json")


def run_all(entries: Sequence[Entry], length: Length, results: Results, processes: int) -> Iterator[Outcome]:
    """The outcome of each case, in order; those in `results` are taken from there, the others are added to it."""
    code, when = sources(*CASES), origin()
    jobs = [Job(entry, length, _fingerprint(entry, length, code), when) for entry in entries]
    missing = [job for job in jobs if results.find(job.entry.case, job.fingerprint) is None]
    with _mapping(processes) as every:
        for _ in every(pooled, dict.fromkeys(job.entry.pool for job in missing)):
            pass
        made = iter(every(run, missing))
        for job in jobs:
            outcome: Outcome | None = results.find(job.entry.case, job.fingerprint)
            if outcome is None:
                outcome = next(made)
                results.add(outcome)
            yield outcome


def _fingerprint(entry: Entry, length: Length, code: list[str]) -> str:
    rules = sources(*RULE_SOURCES) if entry.case.without else []
    return fingerprint([entry.folder.name, entry.pool.kept.name, repr(length), *code, *rules])


def pooled(pool: Pool) -> Pooled:
    """Train, or read what was trained before."""
    if not pool.kept.is_file():
        trained = train_pooled(pool.folder, _split(pool.task, pool.seed, pool.data), pool.steps)
        pool.kept.write_bytes(msgspec.json.encode(trained))
    return msgspec.json.decode(pool.kept.read_bytes(), type=Pooled)


def run(job: Job) -> Outcome:
    """Simulate a fleet."""
    case, pool = job.entry.case, job.entry.pool
    with RULES[case.without].left_out() if case.without else nullcontext():
        result, seconds = run_case(case, job.entry.folder, _split(case.task, case.seed, pool.data), job.length)
    return outcome_of(case, result, pooled(pool), fingerprint=job.fingerprint, origin=job.origin, cpu_seconds=seconds)


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
