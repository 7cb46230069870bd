"""The messages between the agent and a child that looks at new samples: one job, one answer, then it ends."""

import msgspec

from fleet_protocol.bundle_files import BACKBONE_FILE, EVALUATE_FILE
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.task_description import TaskDescription


def looking_files(task: TaskDescription) -> tuple[str, ...]:
    """What a device needs of a bundle to look, besides the weights."""
    return (EVALUATE_FILE, BACKBONE_FILE) if task.backbone else (EVALUATE_FILE,)


class LookJob(msgspec.Struct, frozen=True):
    """Which version is looked with, at how many of the newest stored samples; `files` has those of `looking_files`."""

    description: TaskDescription
    files: dict[str, str]
    weights: str
    sample_store: str
    newest: int
    threads: int
    nice: int
    memory_limit_mib: int
    cpu_limit_seconds: int
    cluster: int = NO_CLUSTER
    """Whose copy of the parameters it is, where the task has copies."""
    own: bytes = b""
    """What the device keeps of the model to itself, where the task has it keep something."""


class Look(msgspec.Struct, frozen=True, tag="look"):
    """The mean loss on earlier samples and on the newest ones, the standard error of their difference, and the largest
    stability index of any input. `earlier` is how many samples the newest are compared with.
    """

    earlier_loss: float
    newest_loss: float
    standard_error: float
    shift: float
    earlier: int


class LookFailure(msgspec.Struct, frozen=True, tag="failure"):
    """Why nothing could be looked at."""

    error: str


Answer = Look | LookFailure
_ANSWERS: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def write_job(job: LookJob) -> bytes:
    """For the child's standard input."""
    return msgspec.msgpack.encode(job)


def read_job(data: bytes) -> LookJob:
    """The other end of `write_job`."""
    return msgspec.msgpack.decode(data, type=LookJob)


def write_answer(answer: Answer) -> bytes:
    """For the child's standard output."""
    return msgspec.msgpack.encode(answer)


def read_answer(data: bytes) -> Answer:
    """The other end of `write_answer`.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _ANSWERS.decode(data)
