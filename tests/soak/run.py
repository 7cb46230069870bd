"""`python -m tests.soak.run`: kills a real fleet's processes again and again, then looks for what got lost.

Says how it goes on standard error; the last line of its output is a JSON object. Exit status 1 where anything is wrong.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import msgspec

from broker_coordinator.storage.database import Database
from tests.soak.driver import Driver, SoakFailedError, Tally
from tests.soak.fleet import Fleet, FleetPlan, run_folder
from tests.soak.plan import strikes
from tests.soak.variants import VARIANTS
from tests.soak.verdict import Verdict, judge
from tests.support.postgresql import PostgresqlServer

AGENTS = 5
NOTE_EVERY = 20


class Summary(msgspec.Struct, frozen=True):
    """What a soak was, and what it showed. `kills` are by kind and place; `put_off` counts traps that were reset."""

    seed: int
    database: str
    variant: str
    broker_wiped: bool
    kills: dict[str, int]
    total_kills: int
    full_disks: int
    put_off: int
    seconds: float
    verdict: Verdict


def soak(
    kills: int,
    seed: int,
    plan: FleetPlan,
    *,
    full_disk_every: int = 0,
    folder: Path | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> Summary:
    """Run one.

    Raises:
        SoakFailedError: with the seed and the last kill; the verdict's problems, or what else went wrong.
    """
    started = time.monotonic()
    with run_folder(folder) as place:
        fleet = Fleet(place, plan)
        driver = Driver(fleet, islice(strikes(seed), kills), note, full_disk_every=full_disk_every)
        try:
            driver.run()
            verdict = judge(fleet)
        except (SoakFailedError, AssertionError) as error:
            raise SoakFailedError(f"seed {seed}, after {driver.tally.last}: {error}") from error
        finally:
            fleet.kill()
    if verdict.problems:
        raise SoakFailedError(f"seed {seed}, {kills} kills: {'; '.join(verdict.problems)}")
    return _summary(seed, plan, driver.tally, verdict, time.monotonic() - started)


def _summary(seed: int, plan: FleetPlan, tally: Tally, verdict: Verdict, seconds: float) -> Summary:
    return Summary(
        seed=seed,
        database="postgresql" if plan.database else "sqlite",
        variant=plan.variant,
        broker_wiped=plan.wipe_broker,
        kills={f"{kind} {where}": count for (kind, where), count in sorted(tally.kills.items())},
        total_kills=tally.kills.total(),
        full_disks=tally.full_disks,
        put_off=tally.put_off,
        seconds=round(seconds, 1),
        verdict=verdict,
    )


def main() -> int:
    """Parse the arguments, run, and print."""
    options = _parser().parse_args()
    started, count = time.monotonic(), 0

    def note(what: str) -> None:
        nonlocal count
        count += 1
        if options.verbose or not count % NOTE_EVERY:
            print(f"{time.monotonic() - started:6.0f} s  {what}", file=sys.stderr, flush=True)

    print(f"seed {options.seed}", file=sys.stderr)
    with _database(options.database) as database:
        plan = FleetPlan(options.agents, options.variant, database, options.wipe_broker)
        try:
            summary = soak(
                options.kills,
                options.seed,
                plan,
                full_disk_every=options.full_disk_every,
                folder=options.folder,
                note=note,
            )
        except SoakFailedError as error:
            print(f"the soak failed: {error}", file=sys.stderr)
            return 1
    told = msgspec.to_builtins(summary)
    verdict = told.pop("verdict")
    print(json.dumps(told | verdict))
    return 0


@contextmanager
def _database(kind: str) -> Iterator[Database | None]:
    if kind == "sqlite":
        yield None
        return
    server = PostgresqlServer()
    try:
        server.start()
        yield server.database("soak")
    finally:
        server.remove()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.run")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    parser.add_argument("--agents", type=int, default=AGENTS)
    parser.add_argument(
        "--variant", choices=tuple(VARIANTS), default="ef21", help="how versions are made, and trained for"
    )
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--wipe-broker", action="store_true", help="the broker loses its disk at each kill")
    parser.add_argument("--full-disk-every", type=int, default=0, metavar="KILLS", help="SQLite only")
    parser.add_argument("--folder", type=Path, help="where everything is kept; a short path")
    parser.add_argument("--verbose", action="store_true", help="a line for each kill")
    return parser


if __name__ == "__main__":
    sys.exit(main())
