"""The messages between the agent and its training worker. Neither side imports more than msgspec here.

Both ways it is frames, each a length of four bytes (big-endian) and one message. The job goes to the worker's standard
input. What comes back on its standard output is any number of `Progress`, `Unconfined` where it is, then one verdict.
In a round that a helper takes part in, the worker asks for steps in between, and has a `Reply` to each.
"""

from typing import BinaryIO, Literal

import msgspec

from edge_agent.core.budget_rules import SpentBudget
from edge_agent.core.gossip.neighbours import Neighbours
from edge_agent.core.gossip.state import most_state_bytes
from edge_agent.core.prompt_settings import PromptSettings
from fleet_protocol.bundle_files import (
    BACKBONE_FILE,
    EVALUATE_FILE,
    KEY_HOLDER_FILE,
    ORT_CHECKPOINT_FILE,
    ORT_OPTIMISER_FILE,
    ORT_TRAINING_FILE,
    PREDICT_FILE,
)
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.gossip_plan import MixingRule, TopologyName
from fleet_protocol.kinds import Told
from fleet_protocol.limits import KIB, MAX_SESSION_MESSAGE_BYTES, MAX_UPDATE_BYTES
from fleet_protocol.split_plan import WHOLE, Cut, device_blocks
from fleet_protocol.task_description import TaskDescription, split_files

EngineName = Literal["onnx-step", "ort-training"]

LENGTH_BYTES = 4

LONGEST_STEP_BYTES = MAX_SESSION_MESSAGE_BYTES + KIB
"""Of a frame's message with a step's request or answer in it."""

STATE_BYTES_PER_PARAMETER = 8
"""At most, of an error feedback's state: two float32, or a float64."""


PLAIN_BYTES_PER_PARAMETER = 4
"""Of what is in a masked update."""


OWN_BYTES_PER_PARAMETER = 4
"""At most, of what a device keeps of the model to itself."""


DRIFT_BYTES_PER_PARAMETER = 4
"""At most, of what a device keeps against drift."""


def engine_files(engine: EngineName, task: TaskDescription) -> tuple[str, ...]:
    """What an engine trains with."""
    if engine == "onnx-step":
        return (task.graph_file,)
    return (ORT_TRAINING_FILE, ORT_OPTIMISER_FILE, ORT_CHECKPOINT_FILE)


def files_for(engine: EngineName, task: TaskDescription, cut: Cut | None = None) -> tuple[str, ...]:
    """What a device with this engine needs of a bundle, besides the weights; with a helper, the graphs of its own
    blocks, whichever engine it has.
    """
    if task.split is not None and cut is not None and cut.helper:
        files = tuple(sorted(split_files(task, device_blocks(task.split, cut))))
    else:
        files = engine_files(engine, task)
        tries = task.clusters is not None and task.clusters.by_devices
        files += (EVALUATE_FILE,) if task.training.validation_share or tries else ()
    files += (PREDICT_FILE,) if task.posterior or task.gossip else ()  # later there may be nobody to fetch it from
    files += (KEY_HOLDER_FILE,) if task.masks and task.masks.key_holder else ()
    return (*files, BACKBONE_FILE) if task.backbone else files


class PackedFile(msgspec.Struct, frozen=True):
    """Weights as fetched: the difference from the file `base` (empty for none) to the one with this hash, in hex."""

    base: str
    difference: bytes
    sha256: str


class Returned(msgspec.Struct, frozen=True):
    """An update that was rejected, `packed` as it was sent, by the error feedback of this `life`.

    `too_large`: refused for what it holds. It was training that diverged, so it is not learned again. `held` is the
    update's. `prompts`: it is no update; the coordinator lacks the prompts that were sent.
    """

    packed: bytes
    life: int = 0
    too_large: bool = False
    held: tuple[int, ...] = ()
    prompts: bool = False
    plain: bytes = b""
    """In place of `packed`, of a masked update: float32[trained]."""


class JoinedCohort(msgspec.Struct, frozen=True):
    """A cohort of masked updates that a round is for, and what the device's owner asks of it.

    `manifest` is the coordinator's signed one, as it came; `coordinator` and `trusted_helpers` are Ed25519 keys.
    `sequence` is the number of this update among masks.
    """

    manifest: bytes
    coordinator: bytes
    device: str
    sequence: int
    base_version: int
    generation: int
    trusted_helpers: list[bytes]
    fewest_devices: int
    fewest_colluding: int


class MaskedResult(msgspec.Struct, frozen=True):
    """A round's update behind masks: `SealedSeeds`, which the agent signs, and masked values, packed. `plain` is what
    is in it without noise, float32[trained], and never leaves the device. `forgotten` as in `TrainingResult`.
    """

    seeds: bytes
    values: bytes
    plain: bytes
    signature: bytes = b""
    forgotten: float = 0.0


class GossipJob(msgspec.Struct, frozen=True):
    """Among whom a device learns without a coordinator: it is `device`, one of `names`, which are in the order of their
    places. `heard` is what neighbours have told since the last round, by name, in the order in which it came. `anew`:
    the device's state was put back, and its neighbours know later changes of that life. `kept` are the parts of its
    state (`edge_agent.core.gossip.state`), none at first.
    """

    device: str
    names: list[str]
    topology: TopologyName
    seed: int
    rule: MixingRule
    heard: list[tuple[str, Told]]
    anew: bool = False
    kept: dict[str, bytes] = {}

    @property
    def neighbours(self) -> Neighbours:
        """Those of the device.

        Raises:
            ConfigurationError: there are too few devices for the topology.
        """
        return Neighbours.of(self.device, self.topology, self.names, self.seed)


class TrainingJob(msgspec.Struct, frozen=True):
    """One round, and what the process that runs it may use.

    Paths are given as text; `files` has those of `files_for`, by their names in the bundle; `residual` is the state of
    the error feedback, empty at first, which then begins the life `life`; `seed` picks the batches. Rounds have seen
    the samples up to the id `trained_through`, and gone over those `epochs` times.
    """

    description: TaskDescription
    engine: EngineName
    files: dict[str, str]
    weights: str
    sample_store: str
    residual: bytes
    returned: list[Returned]
    seed: int
    life: int
    threads: int
    nice: int
    memory_limit_mib: int
    cpu_limit_seconds: int
    trained_through: int = 0
    epochs: float = 0.0
    usual_norm: float = 0.0
    """The running mean of the norms of this device's rounds; 0 where there is none, or no rule needs it."""
    last_weights: str = ""
    """The file of the version that the device trained from last, where the task needs it and it is another one."""
    packed: PackedFile | None = None
    """What to unpack into the file `weights` first."""
    cut: Cut = WHOLE
    """Which blocks a helper runs; the round's other half is at the end of this pipe then."""
    prompting: PromptSettings = PromptSettings()
    """What the device's owner lets it tell, where the task asks for prompts."""
    among: tuple[int, int] | None = None
    """Of a task with privacy of samples: train on those behind the first id, up to the second, which are charged."""
    budgets: list[SpentBudget] = []
    """Of such a task: those of its samples that take part in no step."""
    samples_alone: bool = False
    """Of such a task: no call of the graph sees two samples."""
    told: bytes = b""
    """The mark of the prompts that were told last."""
    cluster: int = NO_CLUSTER
    """Whose copy of the parameters the round trains, where the task has copies; where devices choose, of the last."""
    cohort: JoinedCohort | None = None
    """Of a task with masks: the cohort that the round is for."""
    own: bytes = b""
    """Of a task with `[personal]`: what the device keeps of the model to itself, empty at first."""
    gossip: GossipJob | None = None
    """Of a task that devices learn without a coordinator: among whom."""
    drift: bytes = b""
    """What the device's last round has left against drift, empty at first."""
    versions_since: int = 0
    """How many versions were made since the one in `last_weights`."""


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """Progress of a round; `loss` is the mean over the `steps_done` so far, None where there is none."""

    phase: Literal["reading", "training", "compressing"]
    steps_done: int
    steps: int
    loss: float | None


class Unconfined(msgspec.Struct, frozen=True, tag="unconfined"):
    """This kernel can't keep the worker from `lacking`, in words; it trains all the same."""

    lacking: str


class StepAsked(msgspec.Struct, frozen=True, tag="step_asked"):
    """A `StepRequest` for the helper, encoded; the agent passes it on as it is. `helper` counts the helpers that this
    round has had before: what is for one of those is late, and is not asked of the next one.
    """

    request: bytes
    helper: int = 0


class StepAnswered(msgspec.Struct, frozen=True, tag="step_answered"):
    """A `StepAnswer` of the helper, encoded, and the `number` of the session's request that it came for. They may come
    in another order than they were asked for.
    """

    number: int
    answer: bytes


class SessionLost(msgspec.Struct, frozen=True, tag="session_lost"):
    """No answer comes any more to what was asked. Where it has `moved`, another helper answers what is asked from now
    on; else none does in this round. `words` say why.
    """

    words: str
    moved: bool = False


class TrainingResult(msgspec.Struct, frozen=True, tag="result"):
    """A finished round. `packed` is the update, `residual` what it leaves behind; `loss` is that of its first step,
    of the weights that it began with.

    `life` is the error feedback's. `forgotten` is the norm of what it has not kept, because it was more than its limit.
    `features_computed` counts the samples that the backbone saw in this round; the others' features were there.
    `statistics` are moments of the samples, where nothing was trained as the task awaits its scale.
    `feature_statistics` are those of a task whose head is solved, packed; `residual` then is what was sent.
    `prompts` are a payload of that kind, where the round told some instead of training; `told` is the mark of those
    that were told last.
    `unlike_the_fleet` says how far the samples are from those that the scale was made of, where that is far.
    `epochs` is how often rounds, with this one, have gone over the samples that are stored.
    `usual_norm` is the running mean of the norms of the device's rounds. Where the task's rule sends no round like this
    one, `kept` says why, and `packed` is empty. `held` is of each block the samples that trained it here, where a
    helper ran some of them; empty where the round trained all. `cluster` is whose copy of the parameters it trained.
    `masked` takes the place of `packed` where updates are summed behind masks. `noise` is the noise multiplier of its
    steps, where the task promises privacy of samples. `own` is what the device keeps of the model to itself from now
    on, None where that stays as it is. `drift` is what the next round is steered by against drift, likewise.
    """

    packed: bytes
    residual: bytes
    samples: int
    steps: int
    trained_through: int
    loss: float
    life: int = 0
    forgotten: float = 0.0
    features_computed: int = 0
    statistics: bytes = b""
    feature_statistics: bytes = b""
    prompts: bytes = b""
    told: bytes = b""
    unlike_the_fleet: str = ""
    epochs: float = 0.0
    usual_norm: float = 0.0
    kept: str = ""
    held: tuple[int, ...] = ()
    cluster: int = NO_CLUSTER
    masked: MaskedResult | None = None
    noise: float | None = None
    own: bytes | None = None
    drift: bytes | None = None


class Withheld(msgspec.Struct, frozen=True, tag="withheld"):
    """A round from which nothing is sent; `words` say why, and stay on the device. The residual is unchanged.

    `spent`: nothing was trained, as rounds have gone over these samples as often as the plan allows. `worse`: the round
    made validation samples worse. The others are rules of the task's `[sending]`. `epochs`, `own` and
    `drift` as in `TrainingResult`.
    """

    why: Literal["spent", "worse", "unchanged", "irrelevant", "no_better"]
    words: str
    trained_through: int
    epochs: float
    own: bytes | None = None
    drift: bytes | None = None


class TrainingFailure(msgspec.Struct, frozen=True, tag="failure"):
    """Why the round failed; the weights and the residual are unchanged.

    `unfit` are the ids of stored samples that no round of this task can use. `diverged` is a round whose loss or
    weights were no longer finite: the same samples and weights would diverge again. `store_damaged`: the file of the
    sample store is not what was written. `out_of_memory`: the round needs more than its limit. `out_of_time`: it was
    killed at its time limit. `helper_lost`: its helper gave no answer, or none that can be used. `drift` is what the
    next round is steered by against drift behind one that diverged, None where that stays as it is.
    """

    error: str
    unfit: list[int] = []
    diverged: bool = False
    store_damaged: bool = False
    out_of_memory: bool = False
    out_of_time: bool = False
    helper_lost: bool = False
    drift: bytes | None = None


class RefusedChange(msgspec.Struct, frozen=True, array_like=True):
    """What a neighbour told, and could not be taken into its copy."""

    neighbour: str
    reason: str
    words: str


class GossipRound(msgspec.Struct, frozen=True, tag="gossip_round"):
    """A round of a task with `[gossip]`, whatever came of its training: the parts of the device's state that it has
    `changed`, which have what is to be told, if something is `told`.

    `withheld` says why nothing was trained, or not kept, and `diverged` what a training did that did, from which the
    same samples would diverge again; both empty otherwise. `trained_through` and `epochs` as in `TrainingResult`.
    """

    changed: dict[str, bytes]
    trained_through: int
    epochs: float
    told: bool
    withheld: str = ""
    diverged: str = ""
    refused: list[RefusedChange] = []


class RebuildFailure(msgspec.Struct, frozen=True, tag="rebuild_failure"):
    """Nothing was trained, as the packed weights could not be unpacked; says why. Fetch the whole weights."""

    error: str


Verdict = TrainingResult | Withheld | GossipRound | TrainingFailure | RebuildFailure
News = Progress | Unconfined
Message = News | StepAsked | Verdict
Reply = StepAnswered | SessionLost
_MESSAGES: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_REPLIES: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


class PipeEndedError(Exception):
    """The agent's end of the pipe is closed: it wants no more of this process."""


def write_job(job: TrainingJob) -> bytes:
    """The first message for the worker's standard input, without its length."""
    return msgspec.msgpack.encode(job)


def read_job(data: bytes) -> TrainingJob:
    """The other end of `write_job`."""
    return msgspec.msgpack.decode(data, type=TrainingJob)


def framed(body: bytes) -> bytes:
    """The frame of one message."""
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def write_frame(message: Message | Reply) -> bytes:
    """One frame, for either side's output."""
    return framed(msgspec.msgpack.encode(message))


def read_frame(stream: BinaryIO) -> bytes:
    """The message in the next frame, on the worker's side; waits for all of it.

    Raises:
        PipeEndedError: there is none, or not all of it.
    """
    length = stream.read(LENGTH_BYTES)
    body = stream.read(int.from_bytes(length, "big"))
    if len(length) < LENGTH_BYTES or len(body) < int.from_bytes(length, "big"):
        raise PipeEndedError
    return body


def longest_message(task: TaskDescription, gossip: GossipJob | None = None) -> int:
    """The bytes of the longest message about a round of a task: an update, and what it leaves behind; or all that a
    device keeps which learns without a coordinator.

    What surrounds them is short, or comes in their place.
    """
    plain_bytes = PLAIN_BYTES_PER_PARAMETER * task.parameter_count if task.masks else 0
    own_bytes = OWN_BYTES_PER_PARAMETER * task.parameter_count if task.personal else 0
    drift_bytes = DRIFT_BYTES_PER_PARAMETER * task.parameter_count if task.training.correction != "off" else 0
    state_bytes = STATE_BYTES_PER_PARAMETER * (task.trained_count + task.statistics)
    verdict = MAX_UPDATE_BYTES + state_bytes + plain_bytes + own_bytes + drift_bytes
    if gossip is not None:
        verdict += most_state_bytes(task.parameter_count, len(gossip.neighbours.each))
    return max(verdict, LONGEST_STEP_BYTES if task.split else 0)


def read_message(body: bytes) -> Message:
    """The message in a frame, after its length.

    Raises:
        msgspec.DecodeError: it is no message.
    """
    return _MESSAGES.decode(body)


def read_reply(body: bytes) -> Reply:
    """The agent's reply in a frame, after its length.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _REPLIES.decode(body)
