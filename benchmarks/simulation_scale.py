"""How simulations grow with the fleet: `python -m benchmarks.simulation_scale [--hours 4] [--flower]`.

Fleets of a thousand to a million devices (`pi-4` and `pi-zero-2w`) learn the synthetic task with the weights of
`temperature_forecast`, by the task's own strategy, and messages that are neither signed nor compressed (`--plain`),
each in a process of its own, and all for the same hours, in which a device trains once or twice: device-days of virtual
time per CPU second, accepted updates per CPU second, and the peak memory of that process. CPU seconds count from when
all modules are loaded. What is done once for each device, drawing it and letting it enrol, is in them, and apart in
`start_cpu_seconds`; `cpu_ms_per_update` is without it. `as_shipped` is the smallest fleet with its messages signed and
compressed. All four fleets take half an hour of a core, nearly all of it the largest.

`--flower` also runs Flower's simulation engine in an environment of its own, with a client that adds 1 to as many
weights: rounds of `FLOWER_CLIENTS` clients on all cores, counted from the end of the first round on, as the updates
that it is compared with are counted from the end of the start. Prints one JSON object as its last line;
`cost_over_smallest` compares the CPU seconds of a device with those in the smallest fleet.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.footprint.environments import environment_with
from workbench.simulation.show import Request, prepare
from workbench.simulation.simulation import Options

FLEETS = (1_000, 10_000, 100_000, 1_000_000)
HOURS = 4.0
"""Virtual ones: the first 32 samples take most devices from two hours to four, and then they train."""
TASK = "temperature_forecast"
WEIGHTS = 1_953
PROFILES = ["pi-4", "pi-zero-2w"]
SEED = 1
SCORE_EVERY = 10_000
STARTED_SECONDS = 120.0
"""Virtual ones, after which a million devices have started and enrolled, and hardly any has trained."""
KIB_OF_A_MIB = 1024
FLOWER_PACKAGE = "flwr[simulation]==1.42.0"
FLOWER_CLIENTS, FLOWER_ROUNDS = 200, 6


class Simulated(msgspec.Struct):
    """What one fleet took."""

    devices: int
    hours: float
    plain: bool
    updates: int
    versions: int
    refused: int
    score: float
    cpu_seconds: float
    start_cpu_seconds: float
    wall_seconds: float
    peak_mib: float
    device_days_per_cpu_second: float
    updates_per_cpu_second: float
    cpu_ms_per_update: float
    cpu_ms_per_device: float


def simulated(devices: int, hours: float, *, plain: bool) -> Simulated:
    """Simulate a fleet in this process."""
    request = Request(devices, PROFILES, None, TASK, None, None, None, None, None, None, as_json=True)
    options = Options(SEED, 3600 * hours, score_every=SCORE_EVERY, plain=plain)
    begun, loaded = time.perf_counter(), time.process_time()
    simulation = prepare(request, options)
    started: list[float] = []

    def tick(virtual_seconds: float) -> None:
        if virtual_seconds > STARTED_SECONDS and not started:
            started.append(time.process_time() - loaded)

    summary = simulation.run(tick=tick).summary
    cpu = time.process_time() - loaded
    start = started[0] if started else cpu
    days = devices * hours / 24
    return Simulated(
        devices,
        hours,
        plain,
        summary.updates,
        summary.versions,
        sum(count.times for count in summary.refused.values()),
        round(summary.score, 4),
        round(cpu, 1),
        round(start, 1),
        round(time.perf_counter() - begun, 1),
        round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB_OF_A_MIB, 1),
        round(days / cpu, 2),
        round(summary.updates / cpu, 1),
        round(1e3 * (cpu - start) / max(summary.updates, 1), 3),
        round(1e3 * cpu / devices, 3),
    )


def in_a_child(devices: int, hours: float, *, plain: bool) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.simulation_scale", "--child", str(devices), "--hours", str(hours)]
    done = subprocess.run([*command, *([] if plain else ["--signed"])], stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout.strip(), file=sys.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def flower() -> dict[str, Any]:
    """Flower's simulation engine with a trivial client."""
    python = environment_with("flower-1.42-simulation", FLOWER_PACKAGE)
    child = Path(__file__).with_name("flower_simulation_child.py")
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "FLWR_TELEMETRY_ENABLED": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "FLWR_HOME": str(Path(folder) / "flwr"),
            "PATH": f"{python.parent}:{os.environ['PATH']}",
        }
        arguments = [str(WEIGHTS), str(FLOWER_CLIENTS), str(FLOWER_ROUNDS)]
        done = subprocess.run(
            [python, child, *arguments], capture_output=True, text=True, check=False, env=environment, cwd=folder
        )
    if done.returncode:
        raise SystemExit(f"{child.name} failed: {done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print what each fleet took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="*", default=FLEETS, help="fleets to simulate")
    parser.add_argument("--hours", type=float, default=HOURS, help="virtual hours of each")
    parser.add_argument("--flower", action="store_true", help="run Flower's simulation engine too")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--signed", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(msgspec.json.encode(simulated(options.child, options.hours, plain=not options.signed)).decode())
        return
    peer = flower() if options.flower else None
    fleets = [in_a_child(devices, options.hours, plain=True) for devices in options.devices]
    shipped = in_a_child(min(options.devices), options.hours, plain=False)
    smallest = min(fleets, key=lambda fleet: fleet["devices"])
    costs = {fleet["devices"]: round(fleet["cpu_ms_per_device"] / smallest["cpu_ms_per_device"], 2) for fleet in fleets}
    found = {"fleets": fleets, "cost_over_smallest": costs, "as_shipped": shipped}
    if peer is not None:
        clients = peer["clients_per_cpu_second"]
        times = {fleet["devices"]: round(1e3 / fleet["cpu_ms_per_update"] / clients, 1) for fleet in fleets}
        found |= {"flower": peer, "times_as_many_as_flower": times}
    print(json.dumps({"benchmark": "simulation_scale", **found}))


if __name__ == "__main__":
    main()
