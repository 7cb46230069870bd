"""A device whose pair is attacked, and what its helper may have beside what it sees."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.chained_blocks import ExportedTask
from benchmarks.split_gans.fleet import GanFleet
from benchmarks.split_gans.scenario import SHALLOWEST, Domain, Labelled, Participant
from benchmarks.split_gans.trainee import Training
from fleet_protocol.codec.sparse import FloatVector

PRIVATE, KNOWN = 1000, 4000
"""Pictures of the device, and as many others of its kind, or of another kind, as a helper has."""
ROUND = 25
"""Steps, in which the device's blocks move away from those of the version."""
RATE = 1e-3
DEVICE = "device"


@dataclass(frozen=True, slots=True)
class Victim:
    """`private` are the device's, `alike` others of the same domain, `other` those of another domain, `rest` what is
    left of its own. `weights` f32[P] are those of the version that it begins a round with, `moved` those at its end.
    """

    domain: str
    private: Labelled
    alike: Labelled
    other: Labelled
    rest: Labelled
    weights: FloatVector
    moved: FloatVector


def train_victim(exported: ExportedTask, domains: Sequence[Domain], name: str, iterations: int) -> Victim:
    """A pair that has learned from the device's pictures alone: as in a cluster of one, which gives away most."""
    own = next(domain for domain in domains if domain.name == name)
    other = next(domain for domain in domains if domain.name != name)
    order = np.random.default_rng(11).permutation(len(own.training))
    private, alike, rest = (own.training.take(part) for part in np.split(order, [PRIVATE, PRIVATE + KNOWN]))
    device = Participant(DEVICE, name, private, SHALLOWEST)
    fleet = GanFleet(exported, [device], lambda *_: DEVICE, Training(iterations + ROUND, RATE, seed=0))
    for iteration in range(iterations):
        fleet.iterate(iteration)
    weights = fleet.weights_of(device)
    for iteration in range(iterations, iterations + ROUND):
        fleet.iterate(iteration)
    known = other.training.take(np.random.default_rng(12).permutation(len(other.training))[:KNOWN])
    return Victim(name, private, alike, known, rest, weights, fleet.weights_of(device))
