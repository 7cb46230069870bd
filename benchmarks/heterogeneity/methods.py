"""What is compared: ways to share a model, and ways to have one's own beside it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from benchmarks.heterogeneity.one_shot import OneShot
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.bundle import parse_description
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.downlink_plan import DownlinkPlan
from fleet_protocol.personal_plan import PersonalPlan
from fleet_protocol.posterior_plan import POSTERIOR, PosteriorPlan
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.update_plan import UpdatePlan
from workbench.export.recipe.task_file import USUAL_UPDATE, NamedLoss, TaskFile

DENSE = UpdatePlan(1.0, quantisation="float32", selection="dense")
PUBLISHED = AggregationPlan(buffer_size=10, max_staleness=1000, averaged_versions=1)
"""FedBuff as in its paper, of the ten devices that train at any time."""
DEFAULT = AggregationPlan(buffer_size=5, max_staleness=1000)
AS_PUBLISHED: Final = {"epochs_per_round": 0, "maximum_epochs": 0, "validation_share": 0.0}


@dataclass(frozen=True, slots=True)
class Method:
    """Its plans, and of `training` what is not as the recipe has it."""

    update: UpdatePlan = USUAL_UPDATE
    aggregation: AggregationPlan = DEFAULT
    loss: NamedLoss = "cross_entropy"
    drift: Mapping[str, Any] = field(default_factory=dict)
    """Of `training`, what its training graph is made for."""
    training: Mapping[str, Any] = field(default_factory=dict)
    personal: PersonalPlan | None = None
    clusters: ClusterPlan | None = None
    one_shot: OneShot | None = None
    """Where devices train by themselves, and are averaged once."""
    posterior: PosteriorPlan | None = None

    @property
    def graphs(self) -> "Graphs":
        """What its training graph is made for."""
        return Graphs(self.loss, tuple(self.drift.items()))

    def changed(self, task: TaskDescription, learning_rate: float) -> TaskDescription:
        """The task of this method with a learning rate, on a bundle of its `graphs`. Whole versions travel: packing
        differences takes longer than training, and changes little.
        """
        training = msgspec.structs.replace(task.training, learning_rate=learning_rate, **self.training, **self.drift)
        changed = msgspec.structs.replace(
            task,
            update=self.update,
            aggregation=self.aggregation,
            downlink=DownlinkPlan("off"),
            training=training,
            personal=self.personal,
            clusters=self.clusters,
            posterior=self.posterior,
        )
        return parse_description(msgspec.json.encode(changed))


@dataclass(frozen=True, slots=True)
class Graphs:
    """What tells the bundles of two methods apart; the rest of a method is in the description alone."""

    loss: NamedLoss
    drift: tuple[tuple[str, Any], ...]

    def changed(self, task: TaskFile) -> TaskFile:
        """The recipe's task with these."""
        training = msgspec.structs.replace(task.training, **dict(self.drift))
        return msgspec.structs.replace(task, loss=self.loss, training=training)


HEAD = ("2.*",)
"""The last layer of `benchmarks/mnist_mlp`."""

ACCUMULATED = AggregationPlan(buffer_size=5, max_staleness=1000, strategy="ca2fl")
SCAFFOLD: Final = {"correction": "scaffold"}

FACTORS = msgspec.structs.replace(USUAL_UPDATE, feedback="ef21", selection="top_k_per_tensor", quantisation="int8")
"""What a task with `[posterior]` has where it says nothing else."""
PRODUCT = msgspec.structs.replace(DEFAULT, strategy=POSTERIOR)

METHODS: Final[Mapping[str, Method]] = {
    "fedbuff": Method(DENSE, PUBLISHED, training=AS_PUBLISHED),
    "default": Method(loss="balanced_cross_entropy"),
    "fedprox": Method(DENSE, PUBLISHED, drift={"proximal": 0.1}, training=AS_PUBLISHED),
    "fedprox-adaptive": Method(DENSE, PUBLISHED, drift={"adaptive_proximal": True}, training=AS_PUBLISHED),
    "scaffold-fedbuff": Method(DENSE, PUBLISHED, drift=SCAFFOLD, training=AS_PUBLISHED),
    "scaffold": Method(loss="balanced_cross_entropy", drift=SCAFFOLD),
    "ca2fl": Method(aggregation=ACCUMULATED, loss="balanced_cross_entropy"),
    "scaffold-ca2fl": Method(aggregation=ACCUMULATED, loss="balanced_cross_entropy", drift=SCAFFOLD),
    "one-shot": Method(loss="balanced_cross_entropy", training=AS_PUBLISHED, one_shot="models"),
    "one-shot-heads": Method(
        loss="balanced_cross_entropy", training=AS_PUBLISHED, personal=PersonalPlan("parts", HEAD), one_shot="heads"
    ),
    "fedper": Method(personal=PersonalPlan("parts", HEAD)),
    "fedrep": Method(personal=PersonalPlan("parts", HEAD, first_steps=20)),
    "ditto": Method(personal=PersonalPlan("ditto")),
    "reptile": Method(personal=PersonalPlan("reptile")),
    "per-fedavg": Method(personal=PersonalPlan("maml")),
    "posterior": Method(FACTORS, PRODUCT, posterior=PosteriorPlan()),
    "posterior-whole": Method(FACTORS, PRODUCT, posterior=PosteriorPlan(parameters=("*",))),
    "clusters-cfl": Method(clusters=ClusterPlan(4, found_by="directions")),
    "clusters-ifca": Method(clusters=ClusterPlan(2, found_by="devices")),
}
