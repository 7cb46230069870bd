"""Whom a device exchanges models with: the devices of a roster, and what its topology makes of their places. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from fleet_protocol.gossip import Topology, topology
from fleet_protocol.gossip_plan import TopologyName


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Those of the device at `place`; `names` are of all devices, in the order of their places."""

    topology: Topology
    names: tuple[str, ...]
    place: int

    @staticmethod
    def of(name: str, topology_name: TopologyName, devices: Sequence[str], seed: int) -> "Neighbours":
        """Those of the device with that name, which has to be one of `devices`.

        Raises:
            ConfigurationError: too few devices for the topology.
        """
        return Neighbours(topology(topology_name, len(devices), seed), tuple(devices), devices.index(name))

    @property
    def each(self) -> list[str]:
        """Their names, in the order of their places."""
        return [self.names[place] for place in self.topology.neighbours(self.place)]

    def weights(self, round_number: int) -> dict[str, float]:
        """How much each of those counts that are neighbours in this round (`Topology.weights`)."""
        weights = self.topology.weights(self.place, round_number)
        return {self.names[place]: weight for place, weight in weights.items()}
