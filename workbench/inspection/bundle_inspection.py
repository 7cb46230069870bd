"""What a bundle is, what it asks of a device, and whether the oldest supported onnxruntime runs it.

Nothing of the bundle is trusted before its hash is checked, and nothing in it is executed but its training graph, for
what only running it shows: time, memory and whether training stays steady, all in processes of their own.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import onnx
from onnx import GraphProto, ModelProto

from bundle_runtime.bundle_folder import load_bundle
from edge_agent.profiles import read_profile, shipped_profiles
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle_files import DESCRIPTION_FILE, blob_hash
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.gossip_plan import GossipPlan
from fleet_protocol.personal_plan import PersonalPlan
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.sample_schema import InputSchema, LabelSchema
from fleet_protocol.selection_plan import SelectionPlan
from fleet_protocol.split_plan import SplitPlan
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.training_plan import TrainingPlan
from fleet_protocol.update_plan import UpdatePlan
from workbench.inspection.child import run_child
from workbench.inspection.measured_round import Measurement
from workbench.inspection.trial_round import Trial, try_round

OLDEST_ONNXRUNTIME = "1.24.4"
"""The lower bound in pyproject.toml."""
MAXIMUM_OPSET, MAXIMUM_IR_VERSION = 21, 10
"""What that one is sure to run of the default domain: opset and IR version of ONNX 1.16, which onnxruntime implements
since 1.18, and newer ones run what older ones did (onnxruntime.ai/docs/reference/compatibility.html). 1.24 may
run more; whatever is above this line is reported, not promised."""

SPEED = {
    "generic": 0.04,
    "cortex-a53": 0.04,
    "cortex-a72": 0.15,
    "cortex-a76": 0.4,
    "cortex-a78ae": 0.4,
    "gracemont": 0.5,
}
"""Kind of core to its speed, one of this machine's being 1. Guesses from clocks and vector units (A53 at 1.0 to 1.2
GHz, A72 at 1.5, A76 at 2.4, A78AE at 1.5, Gracemont at up to 3.4, against a server core); no step has been timed on
these boards. A core that is not listed counts as `generic`."""
MEMORY_ESTIMATE = "peak resident memory of a worker on this machine, whatever its profile"
TIME_ESTIMATE = (
    "processor time measured on this machine with one thread, divided by a guessed speed of the profile's core;"
    " a backbone's features come on top, once for each new sample"
)


class File(msgspec.Struct, frozen=True):
    """One file of a bundle whose content has the hash that `task.json` names."""

    name: str
    bytes: int
    sha256: str


class Graph(msgspec.Struct, frozen=True):
    """One graph, and why the oldest onnxruntime can't run it: nothing where it can. `operators` are counted."""

    name: str
    ir_version: int
    opset: int
    operators: dict[str, int]
    obstacles: list[str]


class Need(msgspec.Struct, frozen=True):
    """What a round is estimated to take on one kind of device.

    `feature_ms` is what the backbone takes for each new sample, which is not in `round_seconds`; 0 without one.
    """

    profile: str
    step_ms: float
    round_seconds: float
    feature_ms: float
    peak_memory_mib: float
    memory_limit_mib: int
    fits: bool


class Inspection(msgspec.Struct, frozen=True):
    """Everything that `edgeflock inspect` says. `block_parameters` are as many as `split` has blocks."""

    task: str
    title: str
    format: int
    bundle_sha256: str
    parameters: int
    trainable_parameters: int
    bytes: int
    input: InputSchema
    label: LabelSchema
    inputs: dict[str, InputSchema]
    heads: dict[str, LabelSchema]
    training: TrainingPlan
    update: UpdatePlan
    aggregation: AggregationPlan
    privacy: PrivacyPlan | None
    split: SplitPlan | None
    clusters: ClusterPlan | None
    personal: PersonalPlan | None
    selection: SelectionPlan | None
    gossip: GossipPlan | None
    own_parameters: int
    version_parameters: int
    block_parameters: list[int]
    files: list[File]
    graphs: list[Graph]
    oldest_onnxruntime: str
    runs_on_oldest: bool
    needs: list[Need]
    trial: Trial
    time_estimate: str = TIME_ESTIMATE
    memory_estimate: str = MEMORY_ESTIMATE


def inspect_bundle(folder: Path, samples: Path | None = None) -> Inspection:
    """Verify the bundle in `folder` and describe it; a round is tried on a file of `samples`, or on drawn ones.

    Raises:
        ConfigurationError: no bundle, one of another format, a file that is missing, truncated, altered or no graph, or
            `samples` of another task.
    """
    bundle = load_bundle(folder)
    task, files = bundle.description, bundle.files
    graphs = [_graph(name, files[name]) for name in task.files if name.endswith(".onnx")]
    with _written(task, files) as verified:
        measured = run_child("workbench.inspection.measured_round", [verified], Measurement, task.task)
        trial = try_round(verified, task, samples)
    return Inspection(
        task=task.task,
        title=task.title,
        format=task.format,
        bundle_sha256=blob_hash(files[DESCRIPTION_FILE]),
        parameters=task.parameter_count,
        trainable_parameters=sum(parameter.size for parameter in task.parameters if parameter.trainable),
        bytes=sum(len(files[name]) for name in (DESCRIPTION_FILE, *task.files)),
        input=task.input,
        label=task.label,
        inputs=task.inputs,
        heads=task.heads,
        training=task.training,
        update=task.update,
        aggregation=task.aggregation,
        privacy=task.privacy,
        split=task.split,
        clusters=task.clusters,
        personal=task.personal,
        selection=task.selection,
        gossip=task.gossip,
        own_parameters=sum(each.size for each in task.parameters if each.name in task.own_parameters),
        version_parameters=task.version.size,
        block_parameters=_block_parameters(task),
        files=[
            File(name, len(files[name]), blob_hash(files[name])) for name in (DESCRIPTION_FILE, *sorted(task.files))
        ],
        graphs=graphs,
        oldest_onnxruntime=OLDEST_ONNXRUNTIME,
        runs_on_oldest=not any(graph.obstacles for graph in graphs),
        trial=trial,
        needs=[_need(name, task, measured) for name in shipped_profiles()],
    )


def _block_parameters(task: TaskDescription) -> list[int]:
    """How many parameters each block of the task's `split` has; none without one."""
    counts = [0] * (len(task.split.blocks) if task.split else 0)
    for parameter in task.parameters if task.split else []:
        counts[parameter.block] += parameter.size
    return counts


@contextmanager
def _written(task: TaskDescription, files: dict[str, bytes]) -> Iterator[Path]:
    """The verified files in a folder of their own."""
    with tempfile.TemporaryDirectory() as folder:
        for name in (DESCRIPTION_FILE, *task.files):
            (Path(folder) / name).write_bytes(files[name])
        yield Path(folder)


def _graph(name: str, data: bytes) -> Graph:
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf has no public base for its decoding errors
        raise ConfigurationError(f"{name}: not an ONNX model: {error}; export the bundle again") from error
    operators: dict[str, int] = {}
    for operator in _operators(model.graph):
        operators[operator] = operators.get(operator, 0) + 1
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    return Graph(name, model.ir_version, opset, dict(sorted(operators.items())), obstacles(model))


def obstacles(model: ModelProto) -> list[str]:
    """Why the oldest supported onnxruntime can't run a model. It runs whatever is standard up to its own opset."""
    found = []
    if model.ir_version > MAXIMUM_IR_VERSION:
        found.append(f"IR version {model.ir_version}; onnxruntime {OLDEST_ONNXRUNTIME} reads {MAXIMUM_IR_VERSION}")
    opset = 0
    for entry in model.opset_import:
        if entry.domain not in ("", "ai.onnx"):
            found.append(f"operators of the domain {entry.domain}, which need not be there")
        else:
            opset = entry.version
            if opset > MAXIMUM_OPSET:
                found.append(f"opset {opset}; onnxruntime {OLDEST_ONNXRUNTIME} runs up to {MAXIMUM_OPSET}")
    for operator in sorted(set(_operators(model.graph))):
        domain, _, name = operator.rpartition("::")
        if not domain and not onnx.defs.has(name, max_inclusive_version=min(opset, MAXIMUM_OPSET), domain=""):
            found.append(f"operator {name} is not one of opset {min(opset, MAXIMUM_OPSET)}")
    return found


def _operators(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield f"{node.domain}::{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _operators(attribute.g)


def _need(name: str, task: TaskDescription, measured: Measurement) -> Need:
    profile = read_profile(name)
    speed = SPEED.get(profile.device.cpu, SPEED["generic"])
    step_ms = measured.step_ms / speed
    return Need(
        profile=name,
        step_ms=round(step_ms, 3),
        round_seconds=round(step_ms * task.training.steps / 1000 / profile.worker.cpu_share, 2),
        feature_ms=round(measured.feature_ms / speed, 3),
        peak_memory_mib=round(measured.peak_memory_mib, 1),
        memory_limit_mib=profile.worker.memory_limit_mib,
        fits=measured.peak_memory_mib <= profile.worker.memory_limit_mib,
    )
