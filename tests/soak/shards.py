"""`python -m tests.soak.shards`: kills the processes of a fleet of two shards, its PostgreSQL, and with `--broker nats`
the servers of its broker, at random.

Devices send all the while. At the end every update that was receipted is in the journal once, every version is its
replay, bit for bit, and each death of a leader was followed by the next version in time. The last line of the output is
a JSON object; exit status 1 where anything is wrong. `--keep FOLDER` has what every process has said, and what was done
when, where anything was.
"""

import argparse
import json
import os
import random
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from broker_coordinator.storage.journal_reader import JournalReader
from fleet_protocol.kinds import Outcome
from tests.soak.shard_strikes import GO_ON_SECONDS, Strikes
from tests.support.broker import Broker
from tests.support.bundles import TASK, write_bundle
from tests.support.connected_device import ConnectedDevice
from tests.support.nats import NAME as CLUSTER
from tests.support.nats import NatsCluster
from tests.support.postgresql import PostgresqlServer
from tests.support.shard_processes import SHARDS, ShardedCoordinator, names_in

MOSQUITTO, NATS = "mosquitto", "nats"
DEVICES_OF_SHARD = 2
LONGEST_TAKEOVER_SECONDS = 10.0
KEEP_ALL = "[retention]\nversions = 1000000\n[rate_limit]\nupdates_per_hour = 1e9\nburst = 1000000\n"


class Sender:
    """A device that sends one update after the other, each until its receipt."""

    def __init__(self, device: ConnectedDevice, over: threading.Event) -> None:
        self.device, self.accepted, self.refused = device, set[int](), set[int]()
        self._over = over
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            sequence = 0
            while not self._over.wait(0.05):
                sequence += 1
                update = self.device.update(sequence, base_version=self.device.received.manifests[TASK].version)
                receipt = self.device.publish_until_receipt(update, GO_ON_SECONDS)
                (self.accepted if receipt.outcome is Outcome.ACCEPTED else self.refused).add(sequence)
        except BaseException as error:  # said where the thread is joined
            self._failure = error

    @property
    def has_ended(self) -> bool:
        """Whether it has its last receipt, or has failed."""
        return not self._thread.is_alive()

    def join(self) -> None:
        """Wait for its last receipt."""
        self._thread.join()
        self.device.close()
        if self._failure is not None:
            raise self._failure


def problems_of(fleet: ShardedCoordinator, senders: Sequence[Sender], strikes: Strikes) -> list[str]:
    """What is wrong, in words."""
    with JournalReader.open(fleet.database) as journal:
        held = Counter((row.device, row.sequence) for row in journal.updates())
    accepted = {(each.device.name, sequence) for each in senders for sequence in each.accepted}
    counts = {
        "lost": len(accepted - held.keys()),
        "in the journal twice": sum(count > 1 for count in held.values()),
        "in the journal though refused": len(held.keys() - accepted),
        "takeovers too late": sum(seconds > LONGEST_TAKEOVER_SECONDS for seconds in strikes.takeovers),
    }
    found = [f"{count} {what}" for what, count in counts.items() if count]
    if not fleet.tasks("verify", TASK)["equal"]:
        found.append("the replay differs")
    return found


class Fleet:
    """Two shards, their database, broker and devices, all in one folder."""

    def __init__(self, folder: Path, broker: Broker | NatsCluster) -> None:
        self._folder, self._broker, self._over = folder, broker, threading.Event()
        self.nodes = broker.nodes if isinstance(broker, NatsCluster) else []
        self._protocol = "3.1.1" if self.nodes else "5"
        self.server, self.senders = PostgresqlServer(), list[Sender]()
        self.server.start()
        write_bundle(folder / "bundle")
        database = self.server.database("soak")
        self.coordinator = ShardedCoordinator(
            folder / "c", broker, folder / "bundle", database, KEEP_ALL, protocol=self._protocol
        )

    def start(self) -> None:
        """Start all of it; devices send from then on."""
        self._broker.start()
        self.coordinator.start_all()
        for shard in SHARDS:
            for name in names_in(shard, DEVICES_OF_SHARD):
                key = self.coordinator.public_key
                device = ConnectedDevice(name, self._broker, key, shard=shard, protocol=self._protocol)
                device.enrol()
                self.senders.append(Sender(device, self._over))

    def stop_sending(self, revive: Callable[[], None]) -> None:
        """Wait until everything that was sent has its receipt; `revive` starts shards again that end meanwhile, as one
        does that sees late that another one has taken over.
        """
        self._over.set()
        while not all(sender.has_ended for sender in self.senders):
            revive()
            time.sleep(0.1)
        for sender in self.senders:
            sender.join()

    def end(self) -> None:
        """End everything at once."""
        self._over.set()
        self.coordinator.kill_all()
        self._broker.kill()
        self.server.remove()

    def keep(self, place: Path) -> None:
        """Copy what everybody has said."""
        place.mkdir(parents=True, exist_ok=True)
        for log in (*self._folder.rglob("*.log"), self.server.log_file):
            name = log.relative_to(self._folder).parts if log.is_relative_to(self._folder) else ("postgresql.log",)
            shutil.copy(log, place / "-".join(name))


def run(kills: int, seed: int, broker: str, keep: Path | None) -> dict[str, object]:
    """Run one; `problems` of what it returns is empty where all is well."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        fleet = Fleet(folder, NatsCluster(folder / "nats") if broker == NATS else Broker(folder / "broker"))
        is_well = False
        try:
            fleet.start()
            strikes = Strikes(fleet.coordinator, fleet.server, fleet.nodes, random.Random(seed), folder / "strikes.log")
            for number in range(kills):
                strikes.strike()
                print(f"{number + 1} of {kills}: {dict(strikes.kills)}", file=sys.stderr, flush=True)
            fleet.stop_sending(strikes.revive)
            problems, versions = problems_of(fleet.coordinator, fleet.senders, strikes), fleet.coordinator.newest(TASK)
            is_well = not problems
        finally:
            if keep is not None and not is_well:
                fleet.keep(keep)
            fleet.end()
    return {
        "seed": seed,
        "broker": broker,
        "kills": dict(strikes.kills),
        "accepted": sum(len(each.accepted) for each in fleet.senders),
        "refused": sum(len(each.refused) for each in fleet.senders),
        "versions": versions,
        "longest_takeover_s": round(max(strikes.takeovers, default=0.0), 1),
        "takeovers_s": [round(each, 1) for each in strikes.takeovers],
        "seconds": round(time.monotonic() - begun),
        "problems": problems,
    }


def know_the_cluster_by_name() -> None:
    """Begin this program anew where a cluster's one name has all its addresses, unless it has them here."""
    try:
        socket.gethostbyname(CLUSTER)
    except OSError:
        by_name = NatsCluster(Path(tempfile.mkdtemp())).by_name
        os.execvp(by_name[0], [*by_name, sys.executable, "-m", "tests.soak.shards", *sys.argv[1:]])


def main() -> int:
    """Run, and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.shards", description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    parser.add_argument(
        "--broker", choices=[MOSQUITTO, NATS], default=MOSQUITTO, help="one server, or a cluster of three"
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where all logs are copied if anything is wrong")
    options = parser.parse_args()
    if options.broker == NATS:
        know_the_cluster_by_name()
    found = run(options.kills, options.seed, options.broker, options.keep)
    print(json.dumps(found))
    return 1 if found["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
