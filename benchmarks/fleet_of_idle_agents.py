"""What thousands of connected idle agents cost one Mosquitto and one coordinator, and how a restart of the broker ends.

    python -m benchmarks.fleet_of_idle_agents [--agents 10000] [--idle-seconds 60]

Agents are light sessions of the shipped protocol (`benchmarks.light_sessions`): signed presences, last wills, the
subscriptions of an idle agent, its keepalive, its pauses before it connects again. Broker and coordinator are the
shipped ones. When all are connected and idle, memory and processor time are taken. Then the broker is killed while an
update waits at every agent, and starts again: `storm_seconds` is from then until the last agent is connected,
`settled_seconds` until the last update has its receipt and the coordinator knows every agent as online.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from sqlalchemy import func, select

from benchmarks.ingest import (
    FLEET,
    SHARD,
    TASK,
    Fleet,
    receipted_digest,
    register,
    resident_mb,
    start_coordinator,
    write_bundle,
    write_configuration,
)
from benchmarks.ingest_brokers import Place
from benchmarks.light_sessions import LightSession, Words
from broker_coordinator.storage.database import open_database, reading
from broker_coordinator.storage.schema import devices, payloads
from edge_agent.core.delivery import FIRST_RECEIPT_SECONDS
from fleet_host.broker_settings import BrokerSettings
from fleet_protocol import topics
from fleet_protocol.envelope import digest, sign_envelope
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import PRESENCE, Presence, PresenceState, encode_payload
from fleet_protocol.limits import BOOT_SHIFT
from workbench.demo.brokers import MOSQUITTO_PLACES, free_port

HOST = "127.0.0.1"
CONNECTING_AT_ONCE = 200
LONGEST_SECONDS = 300.0
SPARE_FILES = 500
KEEPALIVE_SECONDS = BrokerSettings(HOST).keepalive_seconds
"""That of an agent whose owner has not chosen another."""

MOSQUITTO_CONFIGURATION = """\
listener {port} 127.0.0.1
user root
allow_anonymous true
persistence true
persistence_location {folder}/
autosave_interval 5
max_inflight_messages 1000
max_queued_messages 100000
set_tcp_nodelay true
log_type error
"""


class IdleFleet:
    """Agents' sessions, and what has come of the updates that wait at them."""

    def __init__(self, fleet: Fleet, port: int) -> None:
        self._port = port
        self._receipts = Counter[bytes]()
        self._sent: set[bytes] = set()
        self.repeated = 0
        self._updates = fleet.updates()
        self._limit = asyncio.Semaphore(CONNECTING_AT_ONCE)
        self.sessions = [
            LightSession(words_of(name, key), KEEPALIVE_SECONDS, self._heard) for name, key in fleet.devices
        ]

    async def connect(self) -> list[asyncio.Task[None]]:
        """Start all sessions, a few at a time."""
        tasks = []
        for each in self.sessions:
            tasks.append(asyncio.create_task(each.keep(HOST, self._port)))
            if len(tasks) % CONNECTING_AT_ONCE == 0:
                await until(lambda: self.connected >= len(tasks) - CONNECTING_AT_ONCE, "agents connect")
        await until(self.is_complete, "all agents are connected")
        return tasks

    @property
    def connected(self) -> int:
        """How many are."""
        return sum(each.connected_at is not None for each in self.sessions)

    def is_complete(self) -> bool:
        """Whether all are connected."""
        return self.connected == len(self.sessions)

    def let_updates_wait(self) -> None:
        """One at every agent, for its next connection."""
        for each, update in zip(self.sessions, self._updates, strict=False):
            each.waiting = update
            self._sent.add(digest(update[1]))

    async def repeat_updates(self) -> None:
        """Send those again whose receipts have not come, as agents do, until all have."""
        while self.without_receipt:
            await asyncio.sleep(FIRST_RECEIPT_SECONDS)
            for each in self.sessions:
                self.repeated += each.send_waiting()

    @property
    def without_receipt(self) -> int:
        """Updates that have none yet."""
        return len(self._sent) - len(self._receipts)

    def _heard(self, session: LightSession, topic: str, data: bytes) -> None:
        if topic.endswith("/down") and session.waiting is not None:
            self._receipts[receipted_digest(data)] += 1
            session.waiting = None


def words_of(device: str, key: SigningKey) -> Words:
    """What an idle agent's session says and hears."""
    state = topics.state(FLEET, SHARD, device)

    def presence(said: PresenceState, sequence: int) -> tuple[str, bytes]:
        payload = encode_payload(Presence(said, 1))
        return state, sign_envelope(key, state, PRESENCE, payload, sequence=1 << BOOT_SHIFT | sequence)

    return Words(
        client=f"{FLEET}-{device}",
        will=presence(PresenceState.OFFLINE, 1),
        online=presence(PresenceState.ONLINE, 2),
        filters=[topics.down(FLEET, SHARD, device), topics.invitation(FLEET, TASK)],
        once=topics.manifest(FLEET, TASK),
    )


async def until(is_there: Callable[[], bool], what: str) -> float:
    """Wait for it; returns the seconds that it took."""
    begun = time.monotonic()
    while not is_there():
        if time.monotonic() - begun > LONGEST_SECONDS:
            raise TimeoutError(f"not within {LONGEST_SECONDS:g} s: {what}")
        await asyncio.sleep(0.1)
    return time.monotonic() - begun


def start_broker(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """A Mosquitto that keeps what it has on its disk."""
    file = folder / "mosquitto.conf"
    file.write_text(MOSQUITTO_CONFIGURATION.format(port=port, folder=folder))
    path = f"{os.environ['PATH']}:{MOSQUITTO_PLACES}"
    return subprocess.Popen(["mosquitto", "-c", str(file)], env=os.environ | {"PATH": path})


class Measurement:
    """One broker and one coordinator in a folder."""

    def __init__(self, folder: Path, agents: int) -> None:
        self._folder = folder
        self._port = free_port()
        self._fleet = Fleet(agents)
        write_bundle(folder / "bundle")
        configuration = write_configuration(folder, Place("127.0.0.1", self._port), agents)
        register(self._fleet, folder / "coordinator.db")
        self._engine = open_database(folder / "coordinator.db", read_only=True)
        self._broker = start_broker(folder, self._port)
        self._coordinator = start_coordinator(configuration, max(os.sched_getaffinity(0)), folder / "log")

    def end(self) -> None:
        """End both."""
        for child in (self._coordinator, self._broker):
            child.terminate()
            child.wait()

    async def run(self, idle_seconds: float) -> dict[str, object]:
        """Measure."""
        await until(lambda: "broker_connected" in (self._folder / "log").read_text(), "the coordinator is connected")
        alone = self._memory("alone")
        fleet = IdleFleet(self._fleet, self._port)
        begun = time.monotonic()
        tasks = await fleet.connect()
        await until(self._knows_all, "the coordinator knows all agents as online")
        connected = time.monotonic() - begun
        cpu = self._cpu_seconds()
        await asyncio.sleep(idle_seconds)
        used = {name: round(after - cpu[name], 2) for name, after in self._cpu_seconds().items()}
        idle = self._memory("idle")
        found = await self._storm(fleet)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return {
            "agents": len(fleet.sessions),
            "first_connected_seconds": round(connected, 1),
            **alone,
            **idle,
            "kb_per_agent_broker": round(1024 * (idle["idle_broker_mb"] - alone["alone_broker_mb"]) / len(tasks), 2),
            "kb_per_agent_coordinator": round(
                1024 * (idle["idle_coordinator_mb"] - alone["alone_coordinator_mb"]) / len(tasks), 2
            ),
            "idle_seconds": idle_seconds,
            "idle_cpu_seconds": used,
            **found,
            **self._memory("after"),
        }

    async def _storm(self, fleet: IdleFleet) -> dict[str, object]:
        self._broker.kill()
        self._broker.wait()
        await until(lambda: fleet.connected == 0, "agents notice that the broker is gone")
        fleet.let_updates_wait()
        self._broker = start_broker(self._folder, self._port)
        begun = time.monotonic()
        await until(fleet.is_complete, "all agents are connected again")
        storm = time.monotonic() - begun
        loop_begun = asyncio.get_running_loop().time() - storm
        back = [each.connected_at - loop_begun for each in fleet.sessions if each.connected_at is not None]
        repeating = asyncio.create_task(fleet.repeat_updates())
        await until(lambda: fleet.without_receipt == 0, "all updates have their receipts")
        repeating.cancel()
        await until(self._knows_all, "the coordinator knows all agents as online again")
        p50, p99 = np.percentile(back, [50, 99])
        return {
            "storm_seconds": round(storm, 1),
            "back_p50_seconds": round(float(p50), 1),
            "back_p99_seconds": round(float(p99), 1),
            "settled_seconds": round(time.monotonic() - begun, 1),
            "updates_repeated": fleet.repeated,
            "updates_lost": fleet.without_receipt,
            "updates_twice": self._journalled() - len(fleet.sessions),
        }

    def _knows_all(self) -> bool:
        online = select(func.count()).where(devices.c.presence == PresenceState.ONLINE.value)
        with reading(self._engine) as connection:
            return connection.scalar(online) == len(self._fleet.devices)

    def _journalled(self) -> int:
        with reading(self._engine) as connection:
            return connection.scalar(select(func.count()).select_from(payloads)) or 0

    def _memory(self, when: str) -> dict[str, float]:
        processes = {"broker": self._broker, "coordinator": self._coordinator}
        return {f"{when}_{name}_mb": resident_mb(psutil.Process(each.pid), "VmRSS") for name, each in processes.items()}

    def _cpu_seconds(self) -> dict[str, float]:
        processes = {"broker": self._broker, "coordinator": self._coordinator}
        times = {name: psutil.Process(each.pid).cpu_times() for name, each in processes.items()}
        return {name: each.user + each.system for name, each in times.items()}


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--idle-seconds", type=float, default=60.0)
    options = parser.parse_args()
    files = options.agents + SPARE_FILES
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard not in {resource.RLIM_INFINITY} and hard < files and os.geteuid():
        sys.exit(f"{options.agents} agents need {files} open files, and this user may have {hard}: raise `ulimit -Hn`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, max(files, hard)))
    with tempfile.TemporaryDirectory() as folder:
        measurement = Measurement(Path(folder), options.agents)
        try:
            print(json.dumps(asyncio.run(measurement.run(options.idle_seconds))))
        finally:
            measurement.end()


if __name__ == "__main__":
    main()
