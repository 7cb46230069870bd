"""How long a fleet waits when a node of its broker dies: `python -m benchmarks.broker_cluster [--rounds 3]`.

Agents and a coordinator, each the shipped process, on three NATS servers of this machine (JetStream, three replicas),
which they know by one name with three addresses; as root, as that name is known in a mount namespace alone. Each node
in turn is killed with SIGKILL while samples come, and started again when the fleet has gone on. For each kill: the
longest pause between two accepted updates in the seconds before and behind it, what was lost or counted twice, and
which node everybody was connected to. Where a node does not become well again, also with an empty store, no other is
killed, as the fleet lives on the two that are left; `ended_early` says so. Prints one JSON object as its last line.
"""

import argparse
import json
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

from tests.support.nats import NatsFleet
from tests.support.waiting import until

WATCHED_SECONDS = 30.0
LOOK_SECONDS = 0.1
FIRST_UPDATES, LEARN_SECONDS = 12, 120.0


def longest_pause(fleet: NatsFleet, seconds: float) -> tuple[float, int]:
    """Between two updates in the journal, and how many came, in the next `seconds`; the end counts as an update."""
    before, begun = fleet.accepted(), time.monotonic()
    seen, times = before, [begun]
    while time.monotonic() < begun + seconds:
        if (now := fleet.accepted()) != seen:
            seen, times = now, [*times, time.monotonic()]
        time.sleep(LOOK_SECONDS)
    return max(later - earlier for earlier, later in pairwise([*times, time.monotonic()])), seen - before


def killed(fleet: NatsFleet, number: int) -> dict[str, object]:
    """The row of one kill."""
    node = fleet.cluster.nodes[number]
    usual, usual_updates = longest_pause(fleet, WATCHED_SECONDS)
    has_connections = fleet.has_connections(node)
    node.kill()
    pause, updates = longest_pause(fleet, WATCHED_SECONDS)
    has_begun_anew = node.rejoin()
    return {
        "node": node.name,
        "has_connections": has_connections,
        "pause_before_s": round(usual, 2),
        "pause_s": round(pause, 2),
        "updates_before": usual_updates,
        "updates": updates,
        "has_begun_anew": has_begun_anew,
    }


def killed_in_turn(fleet: NatsFleet, rounds: int) -> tuple[list[dict[str, object]], str]:
    """The rows of all kills; what ended them early, or nothing."""
    rows: list[dict[str, object]] = []
    for number in list(range(len(fleet.cluster.nodes))) * rounds:
        try:
            rows.append(killed(fleet, number))
        except AssertionError as error:  # what `until` waited for has not come about
            return rows, str(error)
        print(json.dumps(rows[-1]), flush=True)
    return rows, ""


def main() -> None:
    """Print a line for each kill, then everything as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3, help="kills of each node")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fleet = NatsFleet(Path(folder), options.devices)
        try:
            fleet.start()
            with fleet.fed():
                until(lambda: fleet.accepted() >= FIRST_UPDATES, "the fleet learns", LEARN_SECONDS)
                rows, ended_early = killed_in_turn(fleet, options.rounds)
            fleet.finish()
            verdict = fleet.audit()
        finally:
            fleet.kill()
    pauses = [float(str(row["pause_s"])) for row in rows]
    found = {
        "devices": options.devices,
        "kills": rows,
        "median_pause_s": median(pauses),
        "longest_pause_s": max(pauses),
        "ended_early": ended_early,
    }
    print(json.dumps({"benchmark": "broker_cluster"} | found | {"lost": verdict.lost, "twice": verdict.duplicated}))


if __name__ == "__main__":
    main()
