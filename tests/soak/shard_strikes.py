"""What may happen to a fleet of two shards: any of its processes dies, or a part of what they stand on."""

import random
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.support.bundles import TASK
from tests.support.nats import NatsNode
from tests.support.postgresql import PostgresqlServer
from tests.support.shard_processes import ShardedCoordinator, ShardProcess
from tests.support.waiting import until

LONGEST_PAUSE_SECONDS = 2.0
RESTART_SECONDS = 1.0
"""After which whoever was killed is started again, as a parent or systemd does it."""
GO_ON_SECONDS = 120.0
"""In which a version must follow whatever died: a cluster of brokers that has lost a node takes its time."""
TAKEN_OVER = 1

LEADER, FOLLOWER, BOTH = "leader", "follower", "both"
RESTARTED, KILLED = "postgresql restarted", "postgresql killed"
NODE = "node of the broker"
ALWAYS = (LEADER, LEADER, FOLLOWER, BOTH, RESTARTED, KILLED)
WITH_NODES = (NODE, NODE)


class Strikes:
    """Counts them by what died. `nodes` are the broker's, where it has several; every strike is a line in `log`."""

    def __init__(
        self,
        fleet: ShardedCoordinator,
        server: PostgresqlServer,
        nodes: Sequence[NatsNode],
        draw: random.Random,
        log: Path,
    ) -> None:
        self._fleet, self._server, self._nodes, self._draw, self._log = fleet, server, nodes, draw, log
        self._choices = [*ALWAYS, *(WITH_NODES if nodes else ())]
        self.kills = Counter[str]()
        self.takeovers: list[float] = []
        """Seconds from each death of a leader to the next version."""

    def strike(self) -> None:
        """Let something die; see the next version, and all of it serve again."""
        time.sleep(self._draw.uniform(0, LONGEST_PAUSE_SECONDS))
        leader = until(self._leader, "somebody leads", GO_ON_SECONDS)
        follower = next(each for each in self._fleet.processes.values() if each is not leader)
        what = self._draw.choice(self._choices)
        killed = {LEADER: [leader], FOLLOWER: [follower], BOTH: [leader, follower]}.get(what, [])
        node = self._draw.choice(self._nodes) if what == NODE else None
        self.kills[what] += 1
        self._note(f"{what} {' '.join([*(each.shard for each in killed), *([node.name] if node else [])])}")
        self._kill(what, killed, node)
        before, killed_at = self._fleet.newest(TASK), time.monotonic()
        until(lambda: self._has_gone_on(before, killed, killed_at), f"a version after: {what}", GO_ON_SECONDS)
        seconds = time.monotonic() - killed_at
        self._note(f"the next version after {seconds:.1f} s")
        if what == LEADER:
            self.takeovers.append(seconds)
        if node:
            self._note(f"{node.name} is back{', with an empty store' if node.rejoin() else ''}")
        until(lambda: self._revive(killed, killed_at) and self._all_serve(), "all serve again", GO_ON_SECONDS)

    def revive(self) -> None:
        """Start again what has ended since the last strike."""
        self._revive([], 0.0)

    def _kill(self, what: str, killed: Sequence[ShardProcess], node: NatsNode | None) -> None:
        for process in killed:
            process.kill()
        if node:
            node.kill()
        if what == KILLED:
            self._server.kill()
        if what == RESTARTED:
            self._server.stop()
        self._server.start()

    def _has_gone_on(self, before: int, killed: Sequence[ShardProcess], killed_at: float) -> bool:
        self._revive(killed, killed_at)
        return self._fleet.newest(TASK) > before

    def _revive(self, killed: Sequence[ShardProcess], killed_at: float) -> bool:
        for process in self._fleet.processes.values():
            status = process.exit_status()
            if status is None:
                continue
            was_killed = process in killed and status < 0
            assert was_killed or status == TAKEN_OVER, (
                f"shard {process.shard} ended with {status}: {process.log()[-1500:]}"
            )
            if time.monotonic() > killed_at + RESTART_SECONDS:
                self._note(f"shard {process.shard} is started again, which had ended with {status}")
                process.start()
        return True

    def _leader(self) -> ShardProcess | None:
        self.revive()
        found = [each for each in self._fleet.processes.values() if each.leads()]
        return found[0] if len(found) == 1 and self._all_serve() else None

    def _all_serve(self) -> bool:
        return all(each.is_serving() for each in self._fleet.processes.values())

    def _note(self, words: str) -> None:
        with self._log.open("a") as log:
            log.write(f"{datetime.now(UTC):%H:%M:%S.%f} {words}\n")
