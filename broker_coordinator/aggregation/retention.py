"""Which old weights and envelopes the journal may drop. Pure."""

from dataclasses import dataclass

from broker_coordinator.aggregation.strategies import Recall
from fleet_protocol.aggregation_plan import AggregationPlan


@dataclass(frozen=True, slots=True)
class Retention:
    """The operator's rule. Kept are the weights of the newest `versions`, of every `every`-th older one (0: of none),
    of version 0, and of what rollbacks made; and the envelopes of updates in the newest `envelopes` versions (None: all
    of them). A row without weights or envelope stays, with its hash or digest.
    """

    versions: int = 1000
    every: int = 100
    envelopes: int | None = None


@dataclass(frozen=True, slots=True)
class Forgettable:
    """Versions up to `weights_through` may lose their weights, held updates up to `envelopes_through` their envelope;
    -1 where nothing may be forgotten. Of every `every`-th version the weights stay.
    """

    weights_through: int = -1
    every: int = 0
    envelopes_through: int = -1


NOTHING_FORGOTTEN = Forgettable()


def forgettable(rule: Retention, plan: AggregationPlan, recall: Recall, newest: int) -> Forgettable:
    """What the rule allows once version `newest` is made; `recall` is what a start reads of the versions before it.

    Always kept are the weights that a device within `max_staleness` may still train from, and those that the model to
    use is the mean of. What remembers devices' last updates needs the envelopes after a restart.
    """
    versions = max(rule.versions, plan.max_staleness + 1, plan.averaged_versions)
    envelopes = -1
    if rule.envelopes is not None and recall not in (Recall.LAST_UPDATES, Recall.ALL_UPDATES):
        envelopes = newest - rule.envelopes
    return Forgettable(max(-1, newest - versions), rule.every, max(-1, envelopes))
