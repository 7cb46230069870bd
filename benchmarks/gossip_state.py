"""What an agent takes for the state of a task that it learns among neighbours: `python -m benchmarks.gossip_state`.

Rounds of a task with `--parameters` values and four neighbours, of which some have told something since the last one.
The agent's part (`TaskGossip`, agent.db) is in this process, which has no numpy; a child is its training worker, with
the neighbours. Memory is what the process has at most during a round or while it tells, beyond what it has before the
first (VmHWM); bytes written are those handed to the kernel by the commit (`wchar`). One JSON object.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.gossiping.task_gossip import TaskGossip
from edge_agent.shell.storage.device_database import DeviceDatabase
from edge_agent.worker.contract import GossipRound, TrainingJob, framed, read_frame, read_message, write_job
from fleet_protocol import topics
from fleet_protocol.gossip_plan import GossipPlan
from fleet_protocol.keys import SigningKey, write_verify_key
from fleet_protocol.kinds import Member, Roster
from fleet_protocol.parameter import Parameter
from fleet_protocol.task_description import TaskDescription

BUNDLE = "0f" * 32
DIGITS = Path("models/digits/bundle/task.json")
NAMES = ("attic", "barn", "cellar", "den", "hall")
TOLD = (4, 4, 4, 1, 0)
"""How many neighbours have told something before each round; the first three times a whole copy, then changes."""


def status(field: str) -> int:
    """Bytes of a field of this process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def written() -> int:
    """Bytes that this process has handed to the kernel."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.removeprefix("wchar: ")) for line in lines if line.startswith("wchar: "))


def task_of(parameters: int) -> TaskDescription:
    """The digits task with one parameter of that size."""
    digits = msgspec.json.decode(DIGITS.read_bytes(), type=TaskDescription)
    return msgspec.structs.replace(digits, parameters=[Parameter("weight", [parameters])], gossip=GossipPlan("random"))


def job_of(task: TaskDescription, gossip: TaskGossip) -> TrainingJob:
    """The round's, as the agent makes it."""
    return TrainingJob(task, "onnx-step", {}, "", "", b"", [], 0, 7, 1, 0, 0, 0, gossip=gossip.job())


def measure(parameters: int, child: "subprocess.Popen[bytes]", folder: Path) -> list[dict[str, int]]:
    """Each round's figures."""
    task, key = task_of(parameters), SigningKey(bytes(range(32)))
    identity = Identity("home", "0", NAMES[0], key, write_verify_key(key.verify_key))
    database = DeviceDatabase(folder / "agent.db")
    keys = [identity.public_key, *(bytes([place]) * 32 for place in range(1, len(NAMES)))]
    members = tuple(Member(name, key) for name, key in zip(NAMES, keys, strict=True))
    database.rosters.write(task.task, Roster(1, 1, BUNDLE, "random", "mean", 0, members))
    gossip = TaskGossip(task, BUNDLE, identity, database)
    assert child.stdin and child.stdout
    found, before = [], status("VmRSS")
    for told in TOLD:
        Path("/proc/self/clear_refs").write_text("5")
        child.stdin.write(framed(write_job(job_of(task, gossip))))
        child.stdin.flush()
        ended = read_message(read_frame(cast(BinaryIO, child.stdout)))
        assert isinstance(ended, GossipRound)
        bytes_before = written()
        gossip.commit(ended, 0.0)
        bytes_written = written() - bytes_before
        del ended
        in_round = status("VmHWM")
        Path("/proc/self/clear_refs").write_text("5")
        gossip.talk.connected()
        gossip.to_publish(topics.gossip("home", task.task, NAMES[0]), 0.0)
        found.append(
            {
                "told": told,
                "round_mb": _mb(in_round - before),
                "telling_mb": _mb(status("VmHWM") - before),
                "written_mb": _mb(bytes_written),
            }
        )
    database.close()
    return found


def work(given: BinaryIO, out: BinaryIO) -> None:
    """The training worker, and the neighbours: their messages are put into the job here."""
    import numpy as np  # noqa: PLC0415 - the agent has none

    from edge_agent.training.gossip import gossip_round  # noqa: PLC0415
    from edge_agent.worker.contract import TrainingResult, read_job, write_frame  # noqa: PLC0415
    from fleet_protocol.codec import encode_update  # noqa: PLC0415
    from fleet_protocol.kinds import Told  # noqa: PLC0415
    from fleet_protocol.update_plan import WHOLE_UPDATES  # noqa: PLC0415

    random = np.random.default_rng(1)
    for number, told in enumerate(TOLD):
        job = read_job(read_frame(given))
        assert job.gossip is not None
        shapes, count = job.description.shapes, job.description.parameter_count
        heard = []
        plan = WHOLE_UPDATES if number == 0 else job.description.update
        for name in NAMES[1 : 1 + told]:
            values = 0.01 * random.standard_normal(count).astype(np.float32)
            heard.append((name, Told(5, number + 1, encode_update(values, shapes, plan, random).packed, number == 0)))
        learned = encode_update(
            0.01 * random.standard_normal(count).astype(np.float32), shapes, WHOLE_UPDATES, random
        ).packed
        made = TrainingResult(learned, b"", samples=8, steps=1, trained_through=8, loss=0.5, epochs=1.0)
        gossip = msgspec.structs.replace(job.gossip, heard=heard)
        begun = np.zeros(count, np.float32)
        out.write(write_frame(gossip_round(job, gossip, begun, lambda _task, _model, made=made: made)))  # type: ignore[misc]
        out.flush()


def _mb(count: int) -> int:
    return round(count / 1e6)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run both processes, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.worker:
        work(sys.stdin.buffer, sys.stdout.buffer)
        return
    command = [sys.executable, "-m", "benchmarks.gossip_state", "--worker"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child,
    ):
        rounds = measure(given.parameters, child, Path(folder))
    print(json.dumps({"parameters": given.parameters, "neighbours": len(NAMES) - 1, "rounds": rounds}))


if __name__ == "__main__":
    main()
