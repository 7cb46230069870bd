"""The messages between a helper and the child that computes for it, in frames as in `edge_agent.worker.contract`.

The child has one version of one task. It reads a `ComputeJob`, then orders in any number; it answers each step, and the
order to contribute with a verdict, after which it ends.
"""

import msgspec

from edge_agent.worker.contract import (
    LONGEST_STEP_BYTES,
    PackedFile,
    Returned,
    TrainingResult,
    Unconfined,
    framed,
    longest_message,
)
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.task_description import TaskDescription


class ComputeJob(msgspec.Struct, frozen=True):
    """A version, the blocks of a cluster's copy of it that a helper may run, and what its child may use.

    `kept_mib` is how much it keeps between the two passes of steps.
    """

    description: TaskDescription
    files: dict[str, str]
    weights: str
    packed: PackedFile | None
    blocks: list[int]
    threads: int
    nice: int
    memory_limit_mib: int
    cpu_limit_seconds: int
    kept_mib: int
    cluster: int = NO_CLUSTER


class Step(msgspec.Struct, frozen=True, tag="step"):
    """A device's `StepRequest`, encoded; `number` is its session's, and comes back with the answer."""

    session: bytes
    number: int
    request: bytes


class Join(msgspec.Struct, frozen=True, tag="join"):
    """A session has begun, of this cut; its device trains on so many samples, 0 where it does not say."""

    session: bytes
    cut: str
    samples: int


class Leave(msgspec.Struct, frozen=True, tag="leave"):
    """A session has ended: what is kept for it may go."""

    session: bytes


class Contribute(msgspec.Struct, frozen=True, tag="contribute"):
    """Pack what was learned since the last time, as a device does at the end of its round."""

    residual: bytes
    returned: list[Returned]
    seed: int
    life: int


Order = Join | Step | Leave | Contribute


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The version is loaded, and its weights are in their file."""


class StepDone(msgspec.Struct, frozen=True, tag="step_done"):
    """A `StepAnswer`, encoded, and in words why it was `refused`, where it was; or, where the request was none, what is
    wrong with it: the session has to end.
    """

    session: bytes
    number: int
    answer: bytes
    problem: str = ""
    refused: str = ""


class Seen(msgspec.Struct, frozen=True, tag="seen"):
    """Of a session that has ended: the mean of what a block gave, f32[channels] in little endian, over so many rows. No
    rows where there were too few, or the task asks for none.
    """

    session: bytes
    rows: int = 0
    mean: bytes = b""


class NothingLearned(msgspec.Struct, frozen=True, tag="nothing_learned"):
    """No step has trained anything since: there is nothing to contribute."""


class ComputeFailure(msgspec.Struct, frozen=True, tag="compute_failure"):
    """The child can't go on; `is_packed` where the packed weights could not be unpacked. `is_stuck`, which the helper
    says of a child that it has ended: it gave no answer.
    """

    error: str
    is_packed: bool = False
    is_stuck: bool = False


Learned = TrainingResult | NothingLearned
Message = Ready | StepDone | Seen | Unconfined | Learned | ComputeFailure
_ORDERS: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)
_JOBS: msgspec.msgpack.Decoder[ComputeJob] = msgspec.msgpack.Decoder(ComputeJob)
_MESSAGES: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def frame(message: ComputeJob | Order | Message) -> bytes:
    """One frame, in either direction."""
    return framed(msgspec.msgpack.encode(message))


def read_compute_job(body: bytes) -> ComputeJob:
    """The first frame's message; raises `msgspec.DecodeError` where it is none."""
    return _JOBS.decode(body)


def read_order(body: bytes) -> Order:
    """A later frame's message; raises `msgspec.DecodeError` where it is none."""
    return _ORDERS.decode(body)


def read_compute_message(body: bytes) -> Message:
    """A message of the child; raises `msgspec.DecodeError` where it is none."""
    return _MESSAGES.decode(body)


def longest_compute_message(task: TaskDescription) -> int:
    """The bytes of the longest message of the child about a task."""
    return max(longest_message(task), LONGEST_STEP_BYTES)
