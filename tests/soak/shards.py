"""`python -m tests.soak.shards`: kills the processes of a fleet of two shards, and restarts its PostgreSQL, at random.

Devices send all the while. At the end every update that was receipted is in the journal once, every version is its
replay, bit for bit, and each death of a leader was followed by the next version in time. The last line of the output is
a JSON object; exit status 1 where anything is wrong.
"""

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from broker_coordinator.storage.journal_reader import JournalReader
from fleet_protocol.kinds import Outcome
from tests.support.broker import Broker
from tests.support.bundles import TASK, write_bundle
from tests.support.connected_device import ConnectedDevice
from tests.support.postgresql import PostgresqlServer
from tests.support.shard_processes import SHARDS, ShardedCoordinator, ShardProcess, names_in
from tests.support.waiting import until

DEVICES_OF_SHARD = 2
LONGEST_PAUSE_SECONDS = 2.0
RESTART_SECONDS = 1.0
"""After which whoever was killed is started again, as a parent or systemd does it."""
LONGEST_TAKEOVER_SECONDS = 10.0
TAKEN_OVER = 1
KEEP_ALL = "[retention]\nversions = 1000000\n[rate_limit]\nupdates_per_hour = 1e9\nburst = 1000000\n"


class Sender:
    """A device that sends one update after the other, each until its receipt."""

    def __init__(self, device: ConnectedDevice, over: threading.Event) -> None:
        self.device, self.accepted, self.refused = device, set[int](), set[int]()
        self._over = over
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            sequence = 0
            while not self._over.wait(0.05):
                sequence += 1
                update = self.device.update(sequence, base_version=self.device.received.manifests[TASK].version)
                receipt = self.device.publish_until_receipt(update)
                (self.accepted if receipt.outcome is Outcome.ACCEPTED else self.refused).add(sequence)
        except BaseException as error:  # said where the thread is joined
            self._failure = error

    def join(self) -> None:
        """Wait for its last receipt."""
        self._thread.join()
        self.device.close()
        if self._failure is not None:
            raise self._failure


class Soak:
    """A fleet, and what was done to it."""

    def __init__(self, fleet: ShardedCoordinator, server: PostgresqlServer, draw: random.Random) -> None:
        self._fleet, self._server, self._draw = fleet, server, draw
        self.kills = Counter[str]()
        self.takeovers: list[float] = []

    def strike(self) -> None:
        """Kill one process, or restart the database; see the next version where the leader died, and revive."""
        time.sleep(self._draw.uniform(0, LONGEST_PAUSE_SECONDS))
        leader = until(self._leader, "somebody leads")
        follower = next(each for each in self._fleet.processes.values() if each is not leader)
        what = self._draw.choice(["leader", "leader", "follower", "both", "postgresql"])
        self.kills[what] += 1
        if what == "postgresql":
            self._server.stop()
            self._server.start()
        before, killed_at = self._fleet.newest(TASK), time.monotonic()
        killed = {"leader": [leader], "follower": [follower], "both": [leader, follower]}.get(what, [])
        for process in killed:
            process.kill()
        until(lambda: self._has_gone_on(before, killed, killed_at), f"a version after the death of {what}")
        if what == "leader":
            self.takeovers.append(time.monotonic() - killed_at)
        until(lambda: self._revive(killed, killed_at) and self._all_serve(), "all serve again")

    def _has_gone_on(self, before: int, killed: list[ShardProcess], killed_at: float) -> bool:
        self._revive(killed, killed_at)
        return self._fleet.newest(TASK) > before

    def _revive(self, killed: list[ShardProcess], killed_at: float) -> bool:
        for process in self._fleet.processes.values():
            status = process.exit_status()
            if status is None:
                continue
            was_killed = process in killed and status < 0
            assert was_killed or status == TAKEN_OVER, (
                f"shard {process.shard} ended with {status}: {process.log()[-1500:]}"
            )
            if time.monotonic() > killed_at + RESTART_SECONDS:
                process.start()
        return True

    def _leader(self) -> ShardProcess | None:
        self._revive([], 0.0)
        found = [each for each in self._fleet.processes.values() if each.leads()]
        return found[0] if len(found) == 1 and self._all_serve() else None

    def _all_serve(self) -> bool:
        return all(each.is_serving() for each in self._fleet.processes.values())


def problems_of(fleet: ShardedCoordinator, senders: list[Sender], soak: Soak) -> list[str]:
    """What is wrong, in words."""
    with JournalReader.open(fleet.database) as journal:
        held = Counter((row.device, row.sequence) for row in journal.updates())
    accepted = {(each.device.name, sequence) for each in senders for sequence in each.accepted}
    counts = {
        "lost": len(accepted - held.keys()),
        "in the journal twice": sum(count > 1 for count in held.values()),
        "in the journal though refused": len(held.keys() - accepted),
        "takeovers too late": sum(seconds > LONGEST_TAKEOVER_SECONDS for seconds in soak.takeovers),
    }
    found = [f"{count} {what}" for what, count in counts.items() if count]
    if not fleet.tasks("verify", TASK)["equal"]:
        found.append("the replay differs")
    return found


def run(kills: int, seed: int) -> dict[str, object]:
    """Run one; `problems` of what it returns is empty where all is well."""
    begun, over, draw = time.monotonic(), threading.Event(), random.Random(seed)
    server = PostgresqlServer()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        broker, senders = Broker(folder / "broker"), list[Sender]()
        write_bundle(folder / "bundle")
        try:
            server.start()
            broker.start()
            fleet = ShardedCoordinator(folder / "c", broker, folder / "bundle", server.database("soak"), KEEP_ALL)
            fleet.start_all()
            for shard in SHARDS:
                for name in names_in(shard, DEVICES_OF_SHARD):
                    device = ConnectedDevice(name, broker, fleet.public_key, shard=shard)
                    device.enrol()
                    senders.append(Sender(device, over))
            soak = Soak(fleet, server, draw)
            for number in range(kills):
                soak.strike()
                print(f"{number + 1} of {kills}: {dict(soak.kills)}", file=sys.stderr, flush=True)
            over.set()
            for sender in senders:
                sender.join()
            problems, versions = problems_of(fleet, senders, soak), fleet.newest(TASK)
        except AssertionError as error:
            said = "".join(f"\n{each.log_file.name}: {each.log()[-1500:]}" for each in fleet.processes.values())
            raise AssertionError(f"{error}{said}") from error
        finally:
            over.set()
            if "fleet" in locals():
                fleet.kill_all()
            broker.kill()
            server.remove()
    return {
        "seed": seed,
        "kills": dict(soak.kills),
        "accepted": sum(len(each.accepted) for each in senders),
        "refused": sum(len(each.refused) for each in senders),
        "versions": versions,
        "longest_takeover_s": round(max(soak.takeovers, default=0.0), 1),
        "takeovers_s": [round(each, 1) for each in soak.takeovers],
        "seconds": round(time.monotonic() - begun),
        "problems": problems,
    }


def main() -> int:
    """Run, and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.shards", description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    options = parser.parse_args()
    found = run(options.kills, options.seed)
    print(json.dumps(found))
    return 1 if found["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
