"""How many signed updates one coordinator takes in, through a real broker: `python -m benchmarks.ingest`.

Updates are of 50,890 parameters, 1 % ternary, from many devices. The coordinator runs as shipped, pinned to one core;
the broker and this load generator have the others. First as many as it takes with a bounded number under way
(`updates_per_second`), then half that rate, evenly spaced (`p50_ms` and `p99_ms` from publish to receipt). On a machine
that does other work, `updates_per_cpu_second` says what the coordinator would do with a core of its own.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import psutil

from benchmarks.ingest_brokers import BROKERS, ManyLoads, Place
from broker_coordinator.admission.fleet_view import Device, DeviceState
from broker_coordinator.storage.database import Database, open_database, writing
from broker_coordinator.storage.device_registry import store_device
from fleet_protocol import topics
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle_files import (
    DESCRIPTION_FILE,
    EVALUATE_FILE,
    PREDICT_FILE,
    TRAIN_FILE,
    WEIGHTS_FILE,
    blob_hash,
)
from fleet_protocol.codec import encode_update, write_weights
from fleet_protocol.envelope import digest, sign_envelope
from fleet_protocol.keys import SigningKey, write_signing_key
from fleet_protocol.kinds import UPDATE, Update, encode_payload
from fleet_protocol.limits import MAX_SHARDS
from fleet_protocol.parameter import Parameter
from fleet_protocol.sample_schema import InputSchema, LabelSchema
from fleet_protocol.shards import shard_of
from fleet_protocol.task_description import BUNDLE_FORMAT, TaskDescription
from fleet_protocol.training_plan import TrainingPlan
from fleet_protocol.update_plan import UpdatePlan

FLEET = "bench"
SHARD = "0"
TASK = "mlp"
PARAMETERS = [
    Parameter("hidden.weight", [64, 784]),
    Parameter("hidden.bias", [64]),
    Parameter("head.weight", [10, 64]),
    Parameter("head.bias", [10]),
]
KEEP_FRACTION = 0.01
BUFFER_SIZE = 1000
DISTINCT_DELTAS = 64
UNDER_WAY = 2000
STRAGGLER_SECONDS = 60.0
VERIFY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Load:
    """One phase: `latencies` in seconds from publish to receipt, `cpu_seconds` of each watched process meanwhile."""

    updates: int
    seconds: float
    cpu_seconds: Mapping[str, float]
    latencies: list[float]


class Fleet:
    """Devices that only sign: an endless sequence of updates, device after device."""

    def __init__(self, count: int, shards: Sequence[str] = (SHARD,)) -> None:
        self.devices = [(f"device-{number}", SigningKey.generate()) for number in range(count)]
        generator = np.random.default_rng(1)
        shapes = [parameter.shape for parameter in PARAMETERS]
        size = sum(parameter.size for parameter in PARAMETERS)
        deltas = generator.normal(0, 0.01, (DISTINCT_DELTAS, size)).astype(np.float32)
        packed = [encode_update(delta, shapes, UpdatePlan(KEEP_FRACTION), generator).packed for delta in deltas]
        self._payloads = [encode_payload(Update(32, 10, 0.5, each)) for each in packed]
        self._topics = [topics.up(FLEET, shard_of(name, shards), name) for name, _ in self.devices]
        self.update_bytes = 0

    def updates(self) -> Iterator[tuple[str, bytes]]:
        """Topic and signed update, for ever."""
        number = 0
        while True:
            sequence = number // len(self.devices) + 1
            _, key = self.devices[number % len(self.devices)]
            topic = self._topics[number % len(self.devices)]
            payload = self._payloads[number % DISTINCT_DELTAS]
            data = sign_envelope(key, topic, UPDATE, payload, sequence=sequence, task=TASK, base_version=0)
            self.update_bytes = len(data)
            yield topic, data
            number += 1


def write_bundle(folder: Path) -> None:
    """A bundle that no device will train on: only what the coordinator looks at is real."""
    files = {name: name.encode() for name in (TRAIN_FILE, EVALUATE_FILE, PREDICT_FILE)}
    size = sum(parameter.size for parameter in PARAMETERS)
    files[WEIGHTS_FILE] = write_weights(np.zeros(size, np.float32), PARAMETERS)
    description = TaskDescription(
        format=BUNDLE_FORMAT,
        task=TASK,
        title="Ingest benchmark",
        input=InputSchema([784], 0.0, 1.0),
        label=LabelSchema(10),
        parameters=PARAMETERS,
        training=TrainingPlan(steps=10, batch_size=16, learning_rate=0.1),
        update=UpdatePlan(KEEP_FRACTION),
        aggregation=AggregationPlan(buffer_size=BUFFER_SIZE, max_staleness=2**31 - 1),
        files={name: blob_hash(data) for name, data in files.items()},
    )
    folder.mkdir()
    for name, data in (files | {DESCRIPTION_FILE: msgspec.json.encode(description)}).items():
        (folder / name).write_bytes(data)


def write_configuration(
    folder: Path, broker: Place, devices: int, database: str = "coordinator.db", shards: Sequence[str] = ()
) -> Path:
    """A coordinator's folder, without its devices."""
    key = folder / "coordinator.key"
    key.touch(mode=0o600)
    key.write_text(write_signing_key(SigningKey.generate()))
    path = folder / "coordinator.toml"
    path.write_text(
        f'fleet = "{FLEET}"\nkey_file = "coordinator.key"\ndatabase = "{database}"\nmaximum_devices = {devices}\n'
        f"shards = {list(shards)}\n"
        f'[broker]\nhost = "{broker.host}"\nport = {broker.port}\nprotocol = "{broker.protocol}"\n'
        '[[tasks]]\nbundle = "bundle"\n'
        "[rate_limit]\nupdates_per_hour = 1e9\n"
    )
    return path


def register(fleet: Fleet, database: Database) -> None:
    """Let every device in, as an operator would have, but in one transaction."""
    with writing(open_database(database)) as connection:
        for name, key in fleet.devices:
            store_device(connection, Device(name, key.verify_key, DeviceState.APPROVED))


def start_coordinator(configuration: Path, core: int, log: Path) -> subprocess.Popen[bytes]:
    """The shipped program, on one core."""
    command = [sys.executable, "-m", "broker_coordinator.cli", "run", "--config", str(configuration)]
    with log.open("wb") as file:
        coordinator = subprocess.Popen(command, stderr=file)
    os.sched_setaffinity(coordinator.pid, {core})
    return coordinator


class Bench:
    """A fleet's traffic on running coordinators. `watched` are processes by name, each with its children's time."""

    def __init__(
        self, load: ManyLoads, updates: Iterator[tuple[str, bytes]], watched: Mapping[str, psutil.Process]
    ) -> None:
        self._load = load
        self._updates = updates
        self._watched = watched
        self._sent_at: dict[bytes, float] = {}

    def saturate(self, count: int) -> Load:
        """`count` updates as fast as they are receipted, `UNDER_WAY` of them at a time; signed beforehand."""
        return self._run(list(islice(self._updates, count)), lambda sent, _: UNDER_WAY - len(self._sent_at))

    def pace(self, count: int, rate: float) -> Load:
        """`count` updates, `rate` a second, whatever the receipts do; signed beforehand."""
        return self._run(
            list(islice(self._updates, count)), lambda sent, elapsed: min(UNDER_WAY, int(elapsed * rate) + 1 - sent)
        )

    def _run(self, updates: list[tuple[str, bytes]], room: Callable[[int, float], int]) -> Load:
        named = [digest(data) for _, data in updates]
        latencies: list[float] = []
        sent = 0
        begun = time.perf_counter()
        cpu_before = self._cpu_seconds()
        last_heard = begun
        while len(latencies) < len(updates):
            for _ in range(min(room(sent, time.perf_counter() - begun), len(updates) - sent)):
                self._sent_at[named[sent]] = time.perf_counter()
                self._load.publish(*updates[sent])
                sent += 1
            for heard_at, data in self._load.poll(0.001):
                latencies.append(heard_at - self._sent_at.pop(receipted_digest(data)))
                last_heard = heard_at
            if time.perf_counter() - last_heard > STRAGGLER_SECONDS:
                raise TimeoutError(f"{len(updates) - len(latencies)} updates without receipt")
        return Load(len(updates), last_heard - begun, _since(cpu_before, self._cpu_seconds()), latencies)

    def _cpu_seconds(self) -> dict[str, float]:
        return {name: cpu_seconds(process) for name, process in self._watched.items()}


def cpu_seconds(process: psutil.Process) -> float:
    """Of a process and its children that are alive."""
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


def _since(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    return {name: now[name] - before[name] for name in now}


def receipted_digest(data: bytes) -> bytes:
    """Which update a receipt accepts, found without parsing all of it: the generator shares the machine."""
    payload = data[7 + data[3] :]
    if payload[:2] != b"\x86\x50" or payload[19:27] != b"accepted":
        raise ValueError(f"not an accepting receipt: {data.hex()}")
    return payload[2:18]


def verify_only(fleet: Fleet, core: int) -> float:
    """Ed25519 verifications a second on that core: the floor under every ingest."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    message = bytes(900)
    signed = [(key.verify_key, key.sign(message).signature) for _, key in fleet.devices[:200]]
    begun = time.process_time()
    verified = 0
    while time.process_time() - begun < VERIFY_SECONDS:
        for key, signature in signed:
            key.verify(message, signature)
        verified += len(signed)
    os.sched_setaffinity(0, before)
    return verified / (time.process_time() - begun)


def resident_mb(process: psutil.Process, field: str) -> float:
    """VmHWM (the peak) or VmRSS of a process, in MB."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return round(int(text.split(f"{field}:")[1].split()[0]) / 1024, 1)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Run all phases."""
    core = max(os.sched_getaffinity(0))
    fleet = Fleet(options.devices)
    write_bundle(folder / "bundle")
    with BROKERS[options.broker](folder) as broker:
        configuration = write_configuration(folder, broker, options.devices)
        register(fleet, folder / "coordinator.db")
        coordinator = start_coordinator(configuration, core, folder / "log")
        try:
            verified = verify_only(fleet, core)
            process = psutil.Process(coordinator.pid)
            bench = Bench(connect(broker), fleet.updates(), {"coordinator": process})
            bench.saturate(options.devices)  # a first update of every device, to warm up
            peak = bench.saturate(options.updates)
            rate = peak.updates / peak.seconds
            half = bench.pace(int(rate / 2 * options.half_load_seconds), rate / 2)
            result = {"broker": options.broker} | summary(fleet, verified, peak, half)
            result |= soak(bench, process, rate / 2, options.soak_seconds)
            return result | {"peak_rss_mb": resident_mb(process, "VmHWM")}
        finally:
            coordinator.send_signal(signal.SIGTERM)
            coordinator.wait()
            if options.verbose:
                print((folder / "log").read_text()[-2000:])


def connect(broker: Place) -> ManyLoads:
    """Connect, and receive a manifest: then the coordinator is subscribed."""
    deadline = time.monotonic() + STRAGGLER_SECONDS
    while True:
        try:
            load = ManyLoads(broker, "load")
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    load.subscribe(topics.manifest(FLEET, TASK))
    while not load.poll(1.0):
        if time.monotonic() > deadline:
            raise TimeoutError("the coordinator says nothing")
    load.close()
    load = ManyLoads(broker, "load")
    load.subscribe(topics.down(FLEET, "+", "+"))
    return load


def summary(fleet: Fleet, verified: float, peak: Load, half: Load) -> dict[str, object]:
    """The agreed keys, and what they were measured with."""
    p50, p99 = np.percentile(half.latencies, [50, 99]) * 1e3
    rate = peak.updates / peak.seconds
    return {
        "updates_per_second": round(rate),
        "updates_per_cpu_second": round(peak.updates / peak.cpu_seconds["coordinator"]),
        "verify_only_per_second": round(verified),
        "share_of_verify_only": round(rate / verified, 3),
        "p50_ms": round(p50, 1),
        "p99_ms": round(p99, 1),
        "half_load_per_second": round(half.updates / half.seconds),
        "update_bytes": fleet.update_bytes,
        "devices": len(fleet.devices),
        "buffer_size": BUFFER_SIZE,
        "updates": peak.updates,
    }


def soak(bench: Bench, process: psutil.Process, rate: float, seconds: float) -> dict[str, object]:
    """Half load for longer; the resident memory at every tenth part."""
    resident = []
    for _ in range(10 if seconds else 0):
        bench.pace(int(rate * seconds / 10), rate)
        resident.append(resident_mb(process, "VmRSS"))
    return {"soak_seconds": seconds, "soak_rss_mb": resident}


def numbers_of_shards(text: str) -> list[int]:
    """What `--shards` says."""
    numbers = [int(each) for each in text.split(",")]
    if not all(1 <= number <= MAX_SHARDS for number in numbers):
        raise ValueError(text)
    return numbers


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=2000)
    parser.add_argument("--updates", type=int, default=40_000, help="of the phase at full load")
    parser.add_argument("--half-load-seconds", type=float, default=10.0)
    parser.add_argument("--soak-seconds", type=float, default=0.0, help="600 shows whether memory stays flat")
    parser.add_argument("--verbose", action="store_true", help="print the end of the coordinator's log")
    parser.add_argument(
        "--shards", type=numbers_of_shards, metavar="N,M", help="measure fleets of so many shards on PostgreSQL instead"
    )
    parser.add_argument("--broker", choices=list(BROKERS), default="mosquitto", help="nats: a cluster of three servers")
    options = parser.parse_args()
    if options.shards:
        from benchmarks.ingest_shards import measure_shards  # noqa: PLC0415 - it uses this module

        print(json.dumps([measure_shards(number, options.devices, options.updates) for number in options.shards]))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(options, Path(folder))))


if __name__ == "__main__":
    main()
