"""One pair on the pictures of all devices, as if they could be given away: what federated methods are measured by."""

from collections.abc import Sequence

from benchmarks.split_gans.method import Method, nothing, own, own_classes
from benchmarks.split_gans.scenario import Labelled, Participant, Scenario, all_together, joined


def _everything(scenario: Scenario) -> Sequence[Participant]:
    parts = [each.data for each in scenario.devices]
    return [all_together(scenario.devices, joined(parts))]


def _everything_by_domain(scenario: Scenario) -> Sequence[Participant]:
    offsets = {domain.name: own_classes(number) for number, domain in enumerate(scenario.domains)}
    parts = [Labelled(each.data.pictures, each.data.classes + offsets[each.domain]) for each in scenario.devices]
    return [all_together(scenario.devices, joined(parts))]


POOLED = Method(_everything, own, nothing)
POOLED_BY_DOMAIN = Method(_everything_by_domain, own, nothing, own_classes)
"""Told of each picture which domain it is of, too: the bound from above."""
