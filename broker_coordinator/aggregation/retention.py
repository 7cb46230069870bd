"""Which old weights and envelopes the journal may drop. Pure."""

from dataclasses import dataclass

from broker_coordinator.aggregation.averaging import most_averaged
from broker_coordinator.aggregation.quarantine import DEVICES_REMEMBERED
from broker_coordinator.aggregation.strategies import RECENT_VERSIONS, Recall
from fleet_protocol.aggregation_plan import AggregationPlan

STRIDE = 100
"""Versions."""


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
    -1 where nothing may be forgotten. Of every `every`-th version the weights stay; where `last_updates_stay`, of each
    device the envelope of the newest update up to there; and of the last `last_senders_stay` devices, that of the last
    update. What is set aside for good, and began with a version up to `envelopes_through`, may lose its envelope too.
    """

    weights_through: int = -1
    every: int = 0
    envelopes_through: int = -1
    last_updates_stay: bool = False
    last_senders_stay: int = 0


NOTHING_FORGOTTEN = Forgettable()


def forgettable(rule: Retention, plan: AggregationPlan, recall: Recall, newest: int) -> Forgettable:
    """What the rule allows once version `newest` is made; `recall` is what a start reads of the versions before it.

    Always kept are the weights that a device within `max_staleness` may still train from, and those that the model to
    use is the mean of. What remembers recent updates, or devices' last ones, needs their envelopes after a restart;
    what remembers all of them, all. So does what suspicious updates are compared with, of the last devices. Which ones
    the last updates are takes a look at the whole journal, so there `STRIDE` versions lose their envelopes at once.
    """
    versions = max(rule.versions, plan.max_staleness + 1, most_averaged(plan.averaged_versions))
    weights_through = max(-1, newest - versions)
    if rule.envelopes is None or recall is Recall.ALL_UPDATES:
        return Forgettable(weights_through, rule.every)
    envelopes = max(rule.envelopes, RECENT_VERSIONS) if recall is Recall.RECENT_UPDATES else rule.envelopes
    through = max(-1, newest - envelopes)
    last_updates_stay = recall is Recall.LAST_UPDATES
    last_senders_stay = DEVICES_REMEMBERED if plan.holds else 0
    if last_updates_stay or last_senders_stay:
        through = max(-1, through // STRIDE * STRIDE)
    return Forgettable(weights_through, rule.every, through, last_updates_stay, last_senders_stay)
