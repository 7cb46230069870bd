"""A thousand rounds on the real database and postbox, in processes that are killed between any two SQL statements."""

import hashlib
import os
import random
import signal
from pathlib import Path

import numpy as np

from edge_agent.device_database import DeviceDatabase, OutboxRow, SpooledRound
from edge_agent.identity import Identity
from edge_agent.postbox import Postbox
from edge_agent.training.feedback import recall
from fleet_protocol.bundle import UpdatePlan
from fleet_protocol.codec import decode_update, encode_update
from fleet_protocol.errors import Reason
from fleet_protocol.keys import SigningKey, write_verify_key
from fleet_protocol.messages import Outcome, Receipt, Update, decode_payload, encode_payload

ROUNDS = 1000
LONGEST_LIFE_STATEMENTS = 1000
SHAPES, COUNT = [[20, 15], [20]], 320
BUNDLE = "0f" * 32
PLAN = UpdatePlan(0.05)


def learned_in(number: int) -> np.ndarray:
    """What a round would learn: the same however often it is begun."""
    generator = np.random.default_rng(number)
    return (generator.standard_normal(COUNT) * generator.lognormal(-4.0, 2.0)).astype(np.float32)


class Coordinator:
    """Decides once on each envelope; its journal is a folder, written before anybody hears of the decision."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def receipt_for(self, row: OutboxRow) -> Receipt | None:
        """The receipt for an update; None for one in five, each time it is sent: the receipt is lost."""
        packed = decode_payload(row.payload, Update).packed
        accepted = hashlib.sha256(row.digest).digest()[0] % 10 >= 3
        if accepted:
            (self._folder / row.digest.hex()).write_bytes(packed)
        if random.random() < 0.2:
            return None
        if accepted:
            return Receipt(row.digest, Outcome.ACCEPTED, "", "", row.sequence, 1)
        return Receipt(row.digest, Outcome.REJECTED, Reason.TOO_STALE.value, "", row.sequence, 1)

    def applied(self) -> np.ndarray:
        """The sum of all accepted updates."""
        total = np.zeros(COUNT)
        for path in self._folder.iterdir():
            update = decode_update(path.read_bytes(), SHAPES)
            total[update.indices] += update.values
        return total


def play_round(database: DeviceDatabase, postbox: Postbox, identity: Identity, coordinator: Coordinator) -> None:
    memory = database.memory("digits", BUNDLE)
    feedback = recall(PLAN, memory.residual, COUNT)
    for _, packed in memory.returned:
        feedback.give_back(decode_update(packed, SHAPES))
    offered = feedback.offer(learned_in(memory.rounds))
    encoded = encode_update(offered, SHAPES, PLAN, np.random.default_rng(memory.rounds))
    feedback.take(encoded.sent)
    returned = tuple(sequence for sequence, _ in memory.returned)
    payload = encode_payload(Update(1, 1, 0.5, encoded.packed))
    finished = SpooledRound("digits", BUNDLE, 7, 40, encoded.packed, payload, feedback.state(), returned)
    database.spool(finished, identity.seal_update)
    deliver(database, postbox, coordinator)


def deliver(database: DeviceDatabase, postbox: Postbox, coordinator: Coordinator) -> None:
    for row in database.outbox():
        if receipt := coordinator.receipt_for(row):
            postbox.receive(receipt)
            assert not postbox.receive(receipt)


def live(folder: Path, seed: int) -> None:
    """One life of the agent, up to the statement at which it is killed or to the last round."""
    random.seed(seed)
    statements_left = random.randrange(1, LONGEST_LIFE_STATEMENTS)

    def count_down(_: str) -> None:
        nonlocal statements_left
        statements_left -= 1
        if not statements_left:
            os.kill(os.getpid(), signal.SIGKILL)

    key = SigningKey(bytes(range(32)))
    identity = Identity("greenhouse", "0", "pi", key, write_verify_key(key.verify_key))
    database = DeviceDatabase(folder / "agent.db")
    database._connection.set_trace_callback(count_down)
    postbox = Postbox(database, identity.seal_update, publish=None)
    while database.memory("digits", BUNDLE).rounds < ROUNDS:
        play_round(database, postbox, identity, Coordinator(folder / "journal"))
    database.close()


def end_of_a_life(folder: Path, seed: int) -> int:
    child = os.fork()
    if not child:
        try:
            live(folder, seed)
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_what_was_sent_and_what_is_kept_add_up_although_the_agent_is_killed_again_and_again(tmp_path):
    (tmp_path / "journal").mkdir()
    ends = [end_of_a_life(tmp_path, 0)]
    while ends[-1] == -signal.SIGKILL:
        ends.append(end_of_a_life(tmp_path, len(ends)))
    assert ends[-1] == 0
    assert len(ends) > 10

    database, coordinator = DeviceDatabase(tmp_path / "agent.db"), Coordinator(tmp_path / "journal")
    while database.waiting():
        deliver(database, Postbox(database, lambda *_: (b"", b""), publish=None), coordinator)
    memory = database.memory("digits", BUNDLE)
    feedback = recall(PLAN, memory.residual, COUNT)
    kept = feedback.offer(np.zeros(COUNT, np.float32)).astype(np.float64)
    for _, packed in memory.returned:
        update = decode_update(packed, SHAPES)
        kept[update.indices] += update.values
    learned = sum(learned_in(number).astype(np.float64) for number in range(ROUNDS))
    assert memory.rounds == ROUNDS
    assert np.linalg.norm(coordinator.applied() + kept - learned) <= 1e-6 * np.linalg.norm(learned)
