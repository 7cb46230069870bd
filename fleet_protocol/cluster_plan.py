"""A task whose model has a copy of some parameters for each cluster of devices: the table `[clusters]`.

What a version holds is the model's tensors, which are copy 0, and behind them the copies: docs/clusters.md.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Final, Literal

import msgspec

from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_CLUSTERS, MAX_PARAMETERS, MAX_TENSORS
from fleet_protocol.split_plan import SplitPlan, device_blocks

MAX_PATTERNS: Final = 64
"""Of names of parameters: each is compared with each name."""

MOST_NAMES_SAID: Final = 12
"""Of parameters, where a pattern matches none."""

MAX_CALL: Final = 63
"""Of a block in one pass, counted from 0."""

MAX_VERSIONS_BETWEEN: Final = 10_000
"""For which clusters stay as they are."""

NO_CLUSTER: Final = 0
"""Of a device that is in none, and the number of the copy that such devices train."""

Cluster = Annotated[int, msgspec.Meta(ge=NO_CLUSTER, le=MAX_CLUSTERS)]

NOT_COPIED: Final = {
    "fedasync": "it mixes each update into the whole model",
    "posterior": "a device's factor is of one model, and its cluster may change",
    "ef21": "a device's estimate is of one model, and its cluster may change",
}
"""Strategies that do not go with copies, and why."""


FoundBy = Literal["directions", "devices"]


class ClusterPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which parameters have a copy for each cluster of devices, and how many clusters there are (docs/clusters.md)."""

    most: Annotated[int, msgspec.Meta(ge=2, le=MAX_CLUSTERS)] = 4
    """Clusters at most; a version is larger by as many copies, whether or not a cluster has devices."""
    parameters: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_PATTERNS)] = ()
    """Patterns of names, as shells match files, of the parameters that are copied. Left out: all; of a task with a
    [split], those of blocks that some cut leaves to devices."""

    activations: str = ""
    """A point of [split] that every cut leaves to helpers, such as "discriminator.block3": clusters are found by what
    it gives on devices' samples. Left out: an operator says who is in which."""
    call: Annotated[int, msgspec.Meta(ge=0, le=MAX_CALL)] | None = None
    """Which of the block's calls in a pass counts, where its output begins with an axis of calls: 1 in `mnist_gan`,
    whose discriminator sees made pictures first and a device's second. Left out: there is no such axis."""
    every: Annotated[int, msgspec.Meta(ge=1, le=MAX_VERSIONS_BETWEEN)] = 1
    """Clusters are found behind each so many versions, from the second on."""
    found_by: FoundBy | None = None
    """What says who is in which cluster of a task without [split]: "directions", the coordinator by where devices'
    updates point; "devices", each device by which copy is best on its samples. Left out: `activations`, or an operator.
    """

    @property
    def by_devices(self) -> bool:
        """Whether each device chooses the copy that it trains."""
        return self.found_by == "devices"

    @property
    def by_coordinator(self) -> bool:
        """Whether the coordinator finds clusters behind versions."""
        return bool(self.activations) or self.found_by == "directions"

    def copies(self, name: str, block: int, split: SplitPlan | None) -> bool:
        """Whether the parameter of this name in this block has copies."""
        if self.parameters:
            return any(fnmatchcase(name, pattern) for pattern in self.parameters)
        return split is None or block in _blocks_of_devices(split)

    def cluster(self, given: int) -> int:
        """The cluster of a device that was given this one: none, where a newer bundle of the task has fewer."""
        return given if given <= self.most else NO_CLUSTER


def name_of_copy(name: str, copy: int) -> str:
    """What a version calls a copy of the parameter `name`."""
    return f"{name}@{copy}" if copy else name


def check_clusters(
    plan: ClusterPlan, aggregation: AggregationPlan, versions_from: str, *, has_prompts: bool, name: str
) -> None:
    """Raise `ConfigurationError` if a task's other settings do not go with copies."""
    if versions_from != "update":
        raise ConfigurationError(
            f"{name}: [clusters] needs versions that are made from updates, and these are made from {versions_from};"
            " leave [clusters] out"
        )
    if has_prompts:
        raise ConfigurationError(
            f"{name}: what is trained on synthetic data is one model for everybody; leave [clusters] or [prompts] out"
        )
    if why := NOT_COPIED.get(aggregation.strategy):
        raise ConfigurationError(
            f"{name}: aggregation.strategy {aggregation.strategy!r} does not go with [clusters]: {why}; take 'fedbuff'"
            " or 'base_mean', or leave [clusters] out"
        )
    if len(set(plan.parameters)) < len(plan.parameters):
        raise ConfigurationError(f"{name}: clusters.parameters: a pattern stands there twice; leave one out")


def check_found_by(plan: ClusterPlan, sending_rule: str, name: str, *, has_split: bool) -> None:
    """Raise `ConfigurationError` if a task's other settings contradict how its clusters are found."""
    if plan.found_by is None:
        return
    found_by = f"{name}: clusters.found_by = {plan.found_by!r}"
    if plan.activations or plan.call is not None:
        raise ConfigurationError(
            f"{found_by}: clusters.activations and clusters.call are another way to find them; leave one of them out"
        )
    if has_split:
        raise ConfigurationError(
            f"{found_by} needs devices that run the whole model, and [split] leaves some blocks to helpers; write"
            " clusters.activations, or leave [split] out"
        )
    if plan.by_devices and plan.every > 1:
        raise ConfigurationError(
            f"{found_by}: a device chooses before each of its rounds, and clusters.every says how often the coordinator"
            " looks; leave it out"
        )
    if plan.by_devices and sending_rule == "relevant":
        raise ConfigurationError(
            f"{found_by} does not go with sending.rule 'relevant', which compares with the model that a device trained"
            " from last: it may be another copy; take another rule"
        )


def check_copies(plan: ClusterPlan, names: Sequence[str], copied: Sequence[str], size: int, name: str) -> None:
    """Check what the patterns leave: `names` of all tensors of a version, and its `size` in values, where the
    parameters `copied` have copies.

    Raises:
        ConfigurationError: nothing has a copy, two tensors have one name, or a limit is exceeded.
    """
    unmatched = [pattern for pattern in plan.parameters if not any(fnmatchcase(each, pattern) for each in copied)]
    if unmatched or not copied:
        what = f"no parameter is called like {unmatched[0]!r}" if unmatched else "no parameter has copies"
        known = ", ".join(names[:MOST_NAMES_SAID])
        raise ConfigurationError(f"{name}: clusters.parameters: {what}; a version begins with {known}")
    if len(set(names)) < len(names):
        raise ConfigurationError(
            f"{name}: a parameter is called like the copy of another (`NAME@1`); rename it in model.py"
        )
    if size > MAX_PARAMETERS or len(names) > MAX_TENSORS:
        raise ConfigurationError(
            f"{name}: with clusters.most = {plan.most} a version has {size} values in {len(names)} tensors; allowed"
            f" are {MAX_PARAMETERS} in at most {MAX_TENSORS}: copy fewer parameters, or lower clusters.most"
        )


def _blocks_of_devices(split: SplitPlan) -> set[int]:
    return {block for cut in split.cuts for block in device_blocks(split, cut)}
