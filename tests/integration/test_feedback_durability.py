"""Hundreds of rounds on the real database and postbox, in processes that are killed between any two SQL statements."""

import hashlib
import os
import random
import signal
from pathlib import Path

import numpy as np

from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.server_step import initial_state, next_state
from edge_agent.core.outbox import OutboxRow, SpooledPayload
from edge_agent.producers.update import returned_update
from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.connection.postbox import Postbox
from edge_agent.shell.storage.device_database import DeviceDatabase, SpooledRound, TaskMemory
from edge_agent.training.feedback import ErrorFeedback, recall
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.codec import decode_update, encode_update
from fleet_protocol.errors import Reason
from fleet_protocol.keys import SigningKey, write_verify_key
from fleet_protocol.kinds import UPDATE, Outcome, Receipt, Update, decode_payload, encode_payload
from fleet_protocol.update_plan import UpdatePlan

ROUNDS = 300
LONGEST_LIFE_STATEMENTS = 300
SHAPES, COUNT = [[20, 15], [20]], 320
BUNDLE = "0f" * 32
RESIDUAL, EF21 = UpdatePlan(0.05), UpdatePlan(0.05, feedback="ef21")


def learned_in(number: int) -> np.ndarray:
    """What a round would learn: the same however often it is begun."""
    generator = np.random.default_rng(number)
    return (generator.standard_normal(COUNT) * generator.lognormal(-4.0, 2.0)).astype(np.float32)


class Coordinator:
    """Decides once on each envelope; its journal is a folder, written before the decision is returned."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def receipt_for(self, row: OutboxRow) -> Receipt | None:
        """The receipt for an update; None for one in five, each time it is sent: the receipt is lost."""
        accepted = hashlib.sha256(row.digest).digest()[0] % 10 >= 3
        if accepted:
            (self._folder / row.digest.hex()).write_bytes(row.payload)
        if random.random() < 0.2:
            return None
        if accepted:
            return Receipt(row.digest, Outcome.ACCEPTED, "", "", row.sequence, 1)
        return Receipt(row.digest, Outcome.REJECTED, Reason.TOO_STALE.value, "", row.sequence, 1)

    def applied(self) -> list[BufferedUpdate]:
        """All accepted updates, in any order."""
        updates = (decode_payload(path.read_bytes(), Update) for path in self._folder.iterdir())
        return [BufferedUpdate("pi", decode_update(each.packed, SHAPES), 1, 0, 0, each.life) for each in updates]


def play_round(
    plan: UpdatePlan, database: DeviceDatabase, postbox: Postbox, identity: Identity, coordinator: Coordinator
) -> None:
    memory = database.memory("digits", BUNDLE)
    feedback = remembered(plan, memory)
    offered = feedback.offer(learned_in(memory.rounds))
    encoded = encode_update(offered, SHAPES, plan, np.random.default_rng(memory.rounds))
    feedback.take(encoded.sent)
    returned = tuple(row.sequence for row in memory.returned)
    payload = encode_payload(Update(1, 1, 0.5, encoded.packed, feedback.life))
    spooled = SpooledPayload(*identity.address(UPDATE), payload)
    database.spool(SpooledRound("digits", BUNDLE, 7, 40, (spooled,), feedback.state(), returned), identity.sign_row)
    deliver(database, postbox, coordinator)


def remembered(plan: UpdatePlan, memory: TaskMemory) -> ErrorFeedback:
    """The error feedback, once rejected updates are given back to it."""
    feedback = recall(plan, memory.residual, COUNT, life=1)
    for row in memory.returned:
        feedback.give_back(decode_update(returned_update(row.payload).packed, SHAPES))
    return feedback


def deliver(database: DeviceDatabase, postbox: Postbox, coordinator: Coordinator) -> None:
    for number in database.waiting_numbers():
        row = database.read(number)
        if receipt := coordinator.receipt_for(row):
            postbox.receive(receipt)
            assert not postbox.receive(receipt)


def live(plan: UpdatePlan, folder: Path, seed: int) -> None:
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
    postbox = Postbox(database, identity.sign_row, publish=None)
    while database.memory("digits", BUNDLE).rounds < ROUNDS:
        play_round(plan, database, postbox, identity, Coordinator(folder / "journal"))
    database.close()


def end_of_a_life(plan: UpdatePlan, folder: Path, seed: int) -> int:
    child = os.fork()
    if not child:
        try:
            live(plan, folder, seed)
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def live_through_all(plan: UpdatePlan, folder: Path) -> tuple[TaskMemory, list[BufferedUpdate]]:
    """What the device remembers after all rounds, and what was applied; nothing is on its way any more."""
    (folder / "journal").mkdir()
    ends = [end_of_a_life(plan, folder, 0)]
    while ends[-1] == -signal.SIGKILL:
        ends.append(end_of_a_life(plan, folder, len(ends)))
    assert ends[-1] == 0
    assert len(ends) > 10
    database, coordinator = DeviceDatabase(folder / "agent.db"), Coordinator(folder / "journal")
    while database.waiting():
        deliver(database, Postbox(database, lambda _: b"", publish=None), coordinator)
    memory = database.memory("digits", BUNDLE)
    assert memory.rounds == ROUNDS
    return memory, coordinator.applied()


def test_what_was_sent_and_what_is_kept_add_up_although_the_agent_is_killed_again_and_again(tmp_path) -> None:
    memory, applied = live_through_all(RESIDUAL, tmp_path)
    total = remembered(RESIDUAL, memory).offer(np.zeros(COUNT, np.float32)).astype(np.float64)
    for update in applied:
        total[update.delta.indices] += update.delta.values
    learned = sum(learned_in(number).astype(np.float64) for number in range(ROUNDS))
    assert np.linalg.norm(total - learned) <= 1e-6 * np.linalg.norm(learned)


def test_both_sides_of_ef21_hold_the_same_estimate_although_the_agent_is_killed_again_and_again(tmp_path) -> None:
    memory, applied = live_through_all(EF21, tmp_path)
    feedback = remembered(EF21, memory)
    plan = AggregationPlan(buffer_size=len(applied), strategy="ef21")
    held = next_state(initial_state(np.zeros(COUNT, np.float32), plan), applied, plan).remembered["pi"]
    assert held.lives == (feedback.life,)
    assert held.delta.tobytes() == feedback.state()[8:]
    assert np.count_nonzero(held.delta) > COUNT // 2
