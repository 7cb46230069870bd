"""How much a fleet of several shards takes in on one machine: `python -m benchmarks.ingest --shards 1,2`.

Each shard is a process, as `broker-coordinator run --shard` starts it; the journal is in a PostgreSQL whose commits
are on the disk. All of it shares this machine's cores with the broker and the load, so the clock tells how many cores
there are. What tells how shards add up is the CPU time of each process for an update of the fleet: with a core for
each, a fleet takes as many as its busiest process has time for (`updates_per_second_with_own_cores`). What holds
them up by the clock is in `database_sessions`: how many sessions on average did, or waited for, what.
"""

import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Self

import psutil
from sqlalchemy import URL, create_engine, text

from benchmarks.ingest import Bench, Fleet, connect, register, write_bundle, write_configuration
from benchmarks.ingest_brokers import Place, start_broker
from tests.support.postgresql import PostgresqlServer
from workbench.demo.brokers import free_port

START_SECONDS = 60.0
LOOK_SECONDS = 0.05
COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
SESSIONS = """
SELECT state || ': ' || COALESCE(wait_event_type || ' ' || wait_event, 'works, or waits for a core')
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND state IN ('active', 'idle in transaction')
"""
DATABASE = "ingest"


def measure_shards(number: int, devices: int, updates: int) -> dict[str, object]:
    """One fleet of `number` shards and `devices`, under full load for so many `updates`."""
    shards = tuple(map(str, range(number)))
    server = PostgresqlServer(durable=True)
    children: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as place:
        folder, port = Path(place), free_port()
        try:
            server.start()
            url = server.database(DATABASE)
            fleet = Fleet(devices, shards)
            write_bundle(folder / "bundle")
            configuration = write_configuration(folder, Place("127.0.0.1", port), devices, str(url), shards)
            register(fleet, url)
            broker = start_broker(folder, port)
            children.append(broker)
            processes = {f"shard {shard}": _start(configuration, shard) for shard in shards}
            children += processes.values()
            _await_all(folder, shards)
            watched = {name: psutil.Process(each.pid) for name, each in processes.items()}
            watched |= {"postgresql": psutil.Process(server.pid), "broker": psutil.Process(broker.pid)}
            bench = Bench(connect(Place("127.0.0.1", port)), fleet.updates(), watched)
            bench.saturate(devices)  # a first update of every device, to warm up
            with DatabaseSessions(url) as sessions:
                peak = bench.saturate(updates)
        finally:
            for child in reversed(children):
                child.send_signal(signal.SIGTERM)
                child.wait()
            server.remove()
        leaders = [shard for shard in shards if "event=leads" in _log(folder, shard)] or [
            *shards
        ]  # alone it says nothing
    each_update = {name: round(seconds / updates * 1e6, 1) for name, seconds in peak.cpu_seconds.items()}
    busiest = max(seconds for name, seconds in peak.cpu_seconds.items() if name.startswith("shard"))
    return {
        "shards": number,
        "leader": f"shard {leaders[0]}",
        "updates": updates,
        "devices": devices,
        "updates_per_second": round(updates / peak.seconds),
        "updates_per_second_with_own_cores": round(updates / busiest),
        "cpu_microseconds_per_update_of_the_fleet": each_update,
        "latency_ms": round(sum(peak.latencies) / len(peak.latencies) * 1e3, 1),
        "updates_per_commit": round(updates / max(1, sessions.commits)),
        "database_sessions": sessions.shares(),
    }


class DatabaseSessions:
    """What the sessions of a PostgreSQL database are at while it lasts, looked at some times a second."""

    def __init__(self, url: URL) -> None:
        self._engine = create_engine(url, isolation_level="AUTOCOMMIT")
        self._seen, self._looks, self._over = Counter[str](), 0, threading.Event()
        self.commits = 0
        """Of all sessions, those that only read among them."""

    def __enter__(self) -> Self:
        self.commits = -self._commits()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.commits += self._commits() - self._looks
        self._engine.dispose()

    def shares(self) -> dict[str, float]:
        """How many sessions were so on average, by what they were at; those that nobody uses are left out."""
        return {what: round(count / max(1, self._looks), 2) for what, count in self._seen.most_common()}

    def _commits(self) -> int:
        with self._engine.connect() as connection:
            return int(connection.execute(text(COMMITS)).scalar_one())

    def _watch(self) -> None:
        with self._engine.connect() as connection:
            while not self._over.wait(LOOK_SECONDS):
                self._seen.update(connection.scalars(text(SESSIONS)))
                self._looks += 1


def _start(configuration: Path, shard: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "broker_coordinator.cli", "run", "--config", str(configuration), "--shard", shard]
    with (configuration.parent / f"log-{shard}").open("wb") as log:
        return subprocess.Popen(command, stderr=log)


def _log(folder: Path, shard: str) -> str:
    return (folder / f"log-{shard}").read_text()


def _await_all(folder: Path, shards: tuple[str, ...]) -> None:
    """Until each has reached the broker, and one leads where several could."""
    deadline = time.monotonic() + START_SECONDS
    while not all("event=broker_connected" in _log(folder, shard) for shard in shards):
        if time.monotonic() > deadline:
            raise TimeoutError("\n".join(_log(folder, shard) for shard in shards))
        time.sleep(0.1)
