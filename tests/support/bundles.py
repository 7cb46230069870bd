"""A task small enough to reason about, as a bundle. Its graphs are arbitrary bytes: a coordinator never opens them."""

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle_files import (
    DESCRIPTION_FILE,
    EVALUATE_FILE,
    PREDICT_FILE,
    TRAIN_FILE,
    WEIGHTS_FILE,
    blob_hash,
)
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.codec import write_weights
from fleet_protocol.downlink_plan import DownlinkPlan
from fleet_protocol.gossip_plan import AS_BUNDLED, GossipPlan
from fleet_protocol.kinds import UPDATE
from fleet_protocol.parameter import Parameter
from fleet_protocol.posterior_plan import POSTERIOR, PosteriorPlan
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.prompt_plan import PromptPlan
from fleet_protocol.sample_schema import InputSchema, LabelSchema
from fleet_protocol.selection_plan import SelectionPlan
from fleet_protocol.solved_head import FEATURE_STATISTICS_NAME, SolvedHead
from fleet_protocol.split_plan import Block, Cut, SplitPlan, backward_file, forward_file, last_file
from fleet_protocol.task_description import BUNDLE_FORMAT, TaskDescription
from fleet_protocol.training_plan import TrainingPlan
from fleet_protocol.update_plan import UpdatePlan

TASK = "tiny"
PARAMETERS = [Parameter("head.weight", [4, 8]), Parameter("head.bias", [4])]


def write_bundle(
    folder: Path,
    *,
    task: str = TASK,
    parameters: list[Parameter] | None = None,
    aggregation: AggregationPlan | None = None,
    update: UpdatePlan | None = None,
    graph_bytes: int = 200,
    versions_from: str = UPDATE.name,
    solved_head: SolvedHead | None = None,
    split: SplitPlan | None = None,
    prompts: PromptPlan | None = None,
    clusters: ClusterPlan | None = None,
    privacy: PrivacyPlan | None = None,
    selection: SelectionPlan | None = None,
    training: TrainingPlan | None = None,
    posterior: PosteriorPlan | None = None,
    gossip: GossipPlan | None = None,
    more_files: Mapping[str, bytes] | None = None,
) -> Bundle:
    """Write a bundle for `task` into `folder` and load it again; one of strategy `posterior` has that table."""
    parameters = parameters or PARAMETERS
    if aggregation is not None and aggregation.strategy == POSTERIOR:
        posterior = posterior or PosteriorPlan(parameters=("head.bias",))
        training = training or TrainingPlan(steps=25, batch_size=4, learning_rate=0.1, optimiser="sgd")
    if gossip is not None:
        aggregation = aggregation or AggregationPlan(max_delta_norm=10.0)
    size = sum(parameter.size for parameter in parameters)
    weights = np.linspace(-1, 1, size, dtype=np.float32)
    names = (TRAIN_FILE, EVALUATE_FILE, PREDICT_FILE, *sorted(_graphs_of(split)))
    graphs = {name: (name.encode() * graph_bytes)[:graph_bytes] for name in names}
    files = graphs | {WEIGHTS_FILE: write_weights(weights, parameters)} | dict(more_files or {})
    description = TaskDescription(
        format=BUNDLE_FORMAT,
        task=task,
        title="A tiny task",
        input=InputSchema([8], -1.0, 1.0),
        label=LabelSchema(4),
        parameters=parameters,
        training=training or TrainingPlan(steps=25, batch_size=4, learning_rate=0.1),
        update=update or UpdatePlan(keep_fraction=0.5),
        aggregation=aggregation
        or AggregationPlan(buffer_size=3, max_staleness=2, max_delta_norm=10.0, averaged_versions=1),
        files={name: blob_hash(data) for name, data in files.items()},
        versions_from=FEATURE_STATISTICS_NAME if solved_head else versions_from,
        solved_head=solved_head,
        downlink=AS_BUNDLED if gossip else DownlinkPlan("exact" if solved_head else "lossy"),
        split=split,
        prompts=prompts,
        clusters=clusters,
        privacy=privacy,
        selection=selection,
        posterior=posterior,
        gossip=gossip,
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in (files | {DESCRIPTION_FILE: msgspec.json.encode(description)}).items():
        (folder / name).write_bytes(data)
    return load_bundle(folder)


THREE_BLOCKS = SplitPlan([Block("first", [8]), Block("second", [8]), Block("", [])], [Cut("middle", [(1, 2)])])
"""For a task whose device leaves its second block to a helper."""


def _graphs_of(split: SplitPlan | None) -> set[str]:
    last = len(split.blocks) - 1 if split else 0
    passes = {graph(block) for block in range(last) for graph in (forward_file, backward_file)}
    return passes | {last_file(last)} if split else set()
