"""Bytes that a device writes to its database for each round and each receipt: what an SD card wears out by.

They are counted by the kernel (`wchar` in /proc/self/io), over rounds enough to write the log back to the file a few
times: `python -m benchmarks.device_writes`. The last line is one JSON object.
"""

import tempfile
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.core.outbox import SpooledPayload
from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.storage.device_database import DeviceDatabase, SpooledRound
from fleet_protocol.codec import encode_update
from fleet_protocol.keys import SigningKey, write_verify_key
from fleet_protocol.kinds import UPDATE, Outcome, Update, encode_payload
from fleet_protocol.update_plan import UpdatePlan

ROUNDS = 100
PARAMETERS = (5_000, 50_000)
PLANS = {
    "2 % ternary": UpdatePlan(0.02),
    "dense int8": UpdatePlan(1.0, quantisation="int8", selection="dense"),
}
BUNDLE = "0f" * 32


class Written(msgspec.Struct):
    """Mean bytes of one round and its receipt; each `payload_bytes` long, beside a residual of float32."""

    parameters: int
    update: str
    payload_bytes: int
    round: int
    accepted: int
    rejected: int


def written() -> int:
    """Bytes that this process has handed to the kernel."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.removeprefix("wchar: ")) for line in lines if line.startswith("wchar: "))


def measure(folder: Path, parameters: int, name: str) -> Written:
    """Every second update is rejected, and taken back by the round after it."""
    key = SigningKey(bytes(range(32)))
    identity = Identity("home", "0", "pi", key, write_verify_key(key.verify_key))
    database = DeviceDatabase(folder / f"{parameters} {name}.db")
    generator = np.random.default_rng(1)
    totals = {"round": 0, "accepted": 0, "rejected": 0}
    size = 0
    for number in range(ROUNDS):
        delta = generator.standard_normal(parameters).astype(np.float32)
        packed = encode_update(delta, [[parameters]], PLANS[name], generator).packed
        payload = encode_payload(Update(64, 40, 0.5, packed))
        size += len(payload)
        returned = tuple(row.sequence for row in database.memory("digits", BUNDLE).returned)
        spooled = SpooledPayload(*identity.address(UPDATE), payload)
        before = written()
        (row,) = database.spool(
            SpooledRound("digits", BUNDLE, number, 40 * number, (spooled,), delta.tobytes(), returned),
            identity.sign_row,
        )
        after_round = written()
        rejected = number % 2 == 1
        outcome = Outcome.REJECTED if rejected else Outcome.ACCEPTED
        database.settle(row, outcome, "too_stale" if rejected else "", returned=rejected)
        totals["round"] += after_round - before
        totals[outcome.value] += written() - after_round
    database.close()
    return Written(
        parameters,
        name,
        size // ROUNDS,
        totals["round"] // ROUNDS,
        2 * totals["accepted"] // ROUNDS,
        2 * totals["rejected"] // ROUNDS,
    )


def main() -> None:
    """Measure every size with every plan."""
    with tempfile.TemporaryDirectory() as folder:
        found = [measure(Path(folder), parameters, name) for parameters in PARAMETERS for name in PLANS]
    print(msgspec.json.encode({"rounds": ROUNDS, "bytes": found}).decode())


if __name__ == "__main__":
    main()
