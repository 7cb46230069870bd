"""Tasks whose model is a distribution over weights, on the graphs and weights of models/digits."""

import msgspec

from fleet_protocol.posterior_plan import POSTERIOR, PosteriorPlan
from fleet_protocol.task_description import TaskDescription


def with_posterior(base: TaskDescription, plan: PosteriorPlan) -> TaskDescription:
    """The task with such a table, and what goes with it."""
    replace = msgspec.structs.replace
    return replace(
        base,
        training=replace(base.training, optimiser="sgd", learning_rate=0.1),
        update=replace(base.update, feedback="ef21", selection="top_k_per_tensor"),
        aggregation=replace(base.aggregation, strategy=POSTERIOR, server_learning_rate=1.0, server_momentum=0.0),
        posterior=plan,
    )
