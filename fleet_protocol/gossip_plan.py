"""A task that devices learn without a coordinator: the table `[gossip]`, and which tasks can (docs/gossip.md)."""

from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.downlink_plan import DownlinkPlan
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_SEQUENCE, MAX_UPDATE_BYTES
from fleet_protocol.without_effect import UsedBy, check_used

if TYPE_CHECKING:
    from fleet_protocol.task_description import TaskDescription

TopologyName = Literal["ring", "grid", "random"]
MixingRule = Literal["mean", "vote"]

FEWEST_SILENT_ROUNDS: Final = 2
"""For which a neighbour counts at least."""
MAX_WHOLE_VALUES: Final = MAX_UPDATE_BYTES // 4 - 4096
"""Of a model: with its envelope, a copy of so many float32 values is still a message."""
AS_BUNDLED: Final = DownlinkPlan("off")
"""How the weights travel that everybody begins with: no bit of them is rounded."""
EFFECTIVE: Final = {"max_staleness", "max_delta_norm"}
"""Settings of [aggregation] that count where there is no aggregate."""


class GossipPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who exchanges models with whom, where devices learn without a coordinator (docs/gossip.md)."""

    topology: TopologyName
    """`ring`: each with two others, from 3 devices on. `grid`: in turn with those in its row and in its column, from 4
    on. `random`: with four others, from 5 on."""
    rule: MixingRule = "mean"
    """`mean`: a device goes towards the weighted mean of its neighbours. `vote`: neighbours vote on the sign of each
    number; not on a ring."""
    seed: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQUENCE)] = 0
    """Draws who is whose neighbour, where `topology` is `random`."""


USED_BY: Final[UsedBy] = {"seed": ("topology", ("random",))}
"""Settings that mean something only where another one has one of these values."""


def check_plan(plan: GossipPlan, name: str) -> None:
    """Raise `ConfigurationError` for a setting without effect, or a vote where devices would never meet; `name` is what
    the user calls the task.
    """
    check_used(plan, USED_BY, "gossip", name)
    if plan.rule == "vote" and plan.topology == "ring":
        raise ConfigurationError(
            f"{name}: a vote on a ring: two neighbours seldom agree, and devices never meet; take 'random'"
        )


def check_gossip_table(task: "TaskDescription", plan: GossipPlan, name: str) -> None:
    """Check the table on the rest of its task; `name` is the file.

    Raises:
        ConfigurationError: the task needs a coordinator, or a setting has no effect.
    """
    check_gossip(task, name)
    check_plan(plan, name)
    if task.downlink != AS_BUNDLED:
        raise ConfigurationError(
            f"{name}: downlink.differences is {task.downlink.differences!r}, and no version travels in a task with"
            " [gossip]; leave [downlink] out"
        )
    if task.update.feedback != "residual":
        raise ConfigurationError(
            f"{name}: update.feedback {task.update.feedback!r} has no effect with [gossip], where what is left out"
            " stays in the difference to what neighbours know; leave it out"
        )
    usual = AggregationPlan()
    others = [field for field in AggregationPlan.__struct_fields__ if field not in EFFECTIVE]
    if strange := [each for each in others if getattr(task.aggregation, each) != getattr(usual, each)]:
        raise ConfigurationError(
            f"{name}: aggregation.{strange[0]} has no effect with [gossip], where nobody aggregates; leave it out. Of"
            f" [aggregation], {' and '.join(sorted(EFFECTIVE))} count"
        )


def check_gossip(task: "TaskDescription", name: str) -> None:
    """Refuse a task that devices can't learn without a coordinator; `name` is what the user calls it.

    Raises:
        ConfigurationError: something in it needs a coordinator or a helper, and what to do.
    """
    needed = {
        "[scaling] without a scale": (
            task.scaling.is_awaited,
            "the coordinator makes the scale of all devices' samples",
        ),
        "[split]": (task.split, "helpers have a part in its rounds"),
        "[solved_head]": (task.solved_head, "the coordinator solves it"),
        "[prompts]": (task.prompts, "the coordinator makes samples of them"),
        "[clusters]": (task.clusters, "the coordinator finds them"),
        "[personal]": (task.personal, "what is a device's own would be mixed"),
        "[posterior]": (task.posterior, "the coordinator multiplies devices' factors"),
        "[selection]": (task.selection, "the coordinator tells who is to train"),
        "training.correction": (task.training.correction != "off", "there are no versions that tell where all move"),
        "training.adaptive_proximal": (
            task.training.adaptive_proximal,
            "it pulls towards a version of the coordinator",
        ),
        "[privacy]": (task.privacy, "neighbours see each single device's model"),
        "[aggregation.robust]": (task.aggregation.rule, "each device bounds its neighbours by its own rounds instead"),
        "[aggregation.quarantine]": (task.aggregation.suspects, "the coordinator holds updates back"),
        f"aggregation.max_staleness {task.aggregation.max_staleness}": (
            task.aggregation.max_staleness < FEWEST_SILENT_ROUNDS,
            f"neighbours are never in step; {FEWEST_SILENT_ROUNDS} is the least that does",
        ),
        "running statistics (batch normalisation)": (task.statistics, "they are no part of what neighbours mix"),
        f"versions_from {task.versions_from!r}": (task.versions_from != "update", "devices mix models"),
        f"sending.rule {task.sending.rule!r}": (task.sending.rule in {"relevant", "better"}, "'changed' does"),
        "update.selection 'threshold'": (
            task.update.selection == "threshold",
            "what stays below it is never sent, and devices never agree; 'top_k' does",
        ),
        f"a model of {task.parameter_count} values": (
            task.parameter_count > MAX_WHOLE_VALUES,
            f"a copy of more than {MAX_WHOLE_VALUES} float32 values is no message; let fewer parameters train",
        ),
    }
    for what, (found, why) in needed.items():
        if found:
            raise ConfigurationError(
                f"{name}: {what} does not go with gossip: {why}; take another task, or a coordinator"
            )
