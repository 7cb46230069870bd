"""How many frames of 64 KiB one relay passes on, through a real Mosquitto: `python -m benchmarks.relay`.

The relay runs as shipped, pinned to one core; the broker, and the two ends in one process, have the others. The ends
open a session as any device and helper do; then the device's connection sends a full frame again and again, with a
bounded number of bytes under way, and the helper's counts what comes. Before and after that the same bytes go from one
plain client to the other through the broker alone: `share_of_broker` compares both. Every relayed frame passes the
broker twice, so a relay that costs nothing has half. On a machine that does other work, `frames_per_cpu_second` says
what the relay would do with a core of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import msgspec
import numpy as np
import psutil

from benchmarks.ingest import (
    FLEET,
    PARAMETERS,
    SHARD,
    TASK,
    resident_mb,
    write_bundle,
    write_configuration,
)
from benchmarks.ingest_brokers import Place, start_broker
from benchmarks.mqtt_load import MqttLoad
from broker_coordinator.storage.database import open_database
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.helper_registry import HelperRegistry
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle import Bundle, with_description
from bundle_runtime.bundle_folder import load_bundle
from fleet_host.key_files import read_key_ring_file
from fleet_protocol.bundle_files import blob_hash
from fleet_protocol.keys import SigningKey, VerifyKey
from fleet_protocol.kinds import OfferedTask
from fleet_protocol.limits import MIB
from fleet_protocol.sessions.device_end import DeviceEnd
from fleet_protocol.sessions.events import Asked, Outgoing, Wanted
from fleet_protocol.sessions.frames import CHUNK_CONTENT_BYTES, is_frame
from fleet_protocol.sessions.helper_sessions import HelperSessions
from fleet_protocol.sessions.lifecycle import State
from fleet_protocol.sessions.party import Party
from fleet_protocol.split_plan import Block, Cut, SplitPlan, backward_file, forward_file, last_file
from workbench.demo.brokers import free_port

SPLIT = SplitPlan([Block("first", [64]), Block("second", [64]), Block("", [])], [Cut("middle", [(1, 2)])])
UNDER_WAY = 32
"""Frames: 2 MiB, as much as two or three devices have under way."""
STRAGGLER_SECONDS = 10.0
OPENING_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Phase:
    """What came in so many seconds, and the CPU seconds of the process that is looked at."""

    frames: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.frames / self.seconds


def split_bundle(folder: Path) -> Bundle:
    """The bundle of the ingest benchmark, cut: nobody opens its graphs."""
    whole = load_bundle(folder)
    last = len(SPLIT.blocks) - 1
    names = [graph(block) for block in range(last) for graph in (forward_file, backward_file)] + [last_file(last)]
    files = whole.files | {name: name.encode() for name in names}
    hashes = whole.description.files | {name: blob_hash(name.encode()) for name in names}
    description = msgspec.structs.replace(whole.description, split=SPLIT, files=hashes, parameters=PARAMETERS)
    return with_description(Bundle(whole.description, files), description)


class Ends:
    """A device and a helper on the broker, with a session between them."""

    def __init__(self, port: int, coordinator: VerifyKey, device: SigningKey, helper: SigningKey) -> None:
        self.parties = [self._party(name, key, coordinator) for name, key in (("device", device), ("helper", helper))]
        self.loads = [MqttLoad("127.0.0.1", port, party.name) for party in self.parties]
        for load, party in zip(self.loads, self.parties, strict=True):
            load.subscribe(party.relayed)
        self.sessions = HelperSessions(self.parties[1], os.urandom)

    @staticmethod
    def _party(name: str, key: SigningKey, coordinator: VerifyKey) -> Party:
        numbers = count(1)
        return Party(FLEET, SHARD, name, key, coordinator, lambda: next(numbers))

    def open(self, bundle: bytes) -> DeviceEnd:
        """A session that is granted; the relay may still be starting."""
        deadline = time.monotonic() + OPENING_SECONDS
        end = DeviceEnd(self.parties[0], Wanted(TASK, bundle, "middle", 0), os.urandom, time.monotonic())
        while end.state is not State.OPEN:
            now = time.monotonic()
            if now > deadline:
                raise TimeoutError(f"no session within {OPENING_SECONDS:g} s")
            if end.state is State.CLOSED:
                end = DeviceEnd(self.parties[0], end.wanted, os.urandom, now)
            self.sessions.offer([OfferedTask(TASK, bundle)], 1, now)
            self._turn(end, now)
        return end

    def _turn(self, end: DeviceEnd, now: float) -> None:
        end.pass_time(now)
        self._publish(0, end.outgoing(now))
        self._publish(1, self.sessions.outgoing(now))
        for _, data in self.loads[0].poll(0.2):
            end.receive(data, now)
        for _, data in self.loads[1].poll(0.2):
            for event in self.sessions.receive(data, now):
                if isinstance(event, Asked):
                    self.sessions.grant(event.session, now)
        self._publish(1, self.sessions.outgoing(now))

    def _publish(self, at: int, outgoing: list[Outgoing]) -> None:
        for each in outgoing:
            self.loads[at].publish(self.parties[at].topic, each.data)

    def flow(self, topic: str, data: bytes, seconds: float, process: psutil.Process) -> Phase:
        """Send `data` on `topic` for so long, `UNDER_WAY` at a time, and count what the helper's connection hears."""
        sent = heard = 0
        begun = last_heard = time.perf_counter()
        cpu_before = _cpu_seconds(process)
        while (now := time.perf_counter()) - begun < seconds or heard < sent:
            while now - begun < seconds and sent - heard < UNDER_WAY:
                self.loads[0].publish_unacknowledged(topic, data)
                sent += 1
            self.loads[0].poll(0)
            arrived = sum(is_frame(each) for _, each in self.loads[1].poll(0.001))
            heard += arrived
            last_heard = time.perf_counter() if arrived else last_heard
            if now - last_heard > STRAGGLER_SECONDS:
                raise TimeoutError(f"{sent - heard} of {sent} frames were lost")
        return Phase(heard, last_heard - begun, _cpu_seconds(process) - cpu_before)


def full_frame(end: DeviceEnd) -> bytes:
    """The longest frame of the session."""
    end.request(np.random.default_rng(1).bytes(CHUNK_CONTENT_BYTES))
    (outgoing,) = end.outgoing(time.monotonic())
    return outgoing.data


def measure(folder: Path, seconds: float) -> dict[str, object]:
    """Plain clients, the relay, and plain clients again."""
    port = free_port()
    (folder / "bundle").parent.mkdir(exist_ok=True)
    write_bundle(folder / "bundle")
    bundle = split_bundle(folder / "bundle")
    configuration = write_configuration(folder, Place("127.0.0.1", port), devices=2)
    device, helper = SigningKey.generate(), SigningKey.generate()
    engine = open_database(folder / "coordinator.db")
    TaskRegistry(engine).publish(bundle)
    for name, key in (("device", device), ("helper", helper)):
        DeviceRegistry(engine).approve(name, key.verify_key)
    HelperRegistry(engine).allow("helper")
    engine.dispose()
    broker = start_broker(folder, port)
    relay = None
    try:
        _wait_for(port)
        coordinator = read_key_ring_file(folder / "coordinator.key", "broker-coordinator")[0].verify_key
        ends = Ends(port, coordinator, device, helper)
        command = [sys.executable, "-P", "-m", "session_relay.relay", str(configuration)]
        relay = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])})
        os.sched_setaffinity(relay.pid, {max(os.sched_getaffinity(0))})
        end = ends.open(bytes.fromhex(bundle.hash))
        data = full_frame(end)
        plain = "benchmark/plain"
        ends.loads[1].subscribe(plain)
        of_broker, of_relay = psutil.Process(broker.pid), psutil.Process(relay.pid)
        before = ends.flow(plain, data, seconds, of_broker)
        relayed = ends.flow(ends.parties[0].topic, data, seconds, of_relay)
        after = ends.flow(plain, data, seconds, of_broker)
        return _result(len(data), before, relayed, after) | {"peak_rss_mb": resident_mb(of_relay, "VmHWM")}
    finally:
        for process in (relay, broker):
            if process is not None:
                process.kill()
                process.wait()


def _result(frame_bytes: int, before: Phase, relayed: Phase, after: Phase) -> dict[str, object]:
    broker_rate = (before.frames + after.frames) / (before.seconds + after.seconds)
    broker_cpu = (before.frames + after.frames) / (before.cpu_seconds + after.cpu_seconds)
    return {
        "frame_bytes": frame_bytes,
        "frames_per_second": round(relayed.rate, 1),
        "mebibytes_per_second": round(relayed.rate * frame_bytes / MIB, 1),
        "frames_per_cpu_second": round(relayed.frames / relayed.cpu_seconds, 1),
        "broker_frames_per_second": round(broker_rate, 1),
        "broker_frames_per_cpu_second": round(broker_cpu, 1),
        "share_of_broker": round(relayed.rate / broker_rate, 3),
        "frames": relayed.frames,
        "cores": os.cpu_count(),
    }


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + OPENING_SECONDS
    while True:
        try:
            MqttLoad("127.0.0.1", port, "first").close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def main() -> None:
    """Run it in a folder that is deleted afterwards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each of the three phases")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), options.seconds)))


if __name__ == "__main__":
    main()
