"""What each cluster's generator draws, by every version of a run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from broker_coordinator.aggregation.narrowing import Narrowing, narrowing
from bundle_runtime.bundle import Bundle
from bundle_runtime.drawing import Drawer
from bundle_runtime.pictures import Pixels, pixels_of
from bundle_runtime.variety import variety
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.errors import ConfigurationError
from workbench.demo.drawn.groups import drawer_of, grouped

SHOWN: Final = 8
"""Pictures of each class."""
MEASURED: Final = 16
"""The same, by which their variety is measured."""
SEED: Final = 1
"""The same latent numbers for every version, so that one sees how a picture forms."""

Pictures = Sequence[Sequence[Pixels]]
"""[classes][`SHOWN`]"""


@dataclass(frozen=True, slots=True)
class DrawnGroup:
    """What a version of a cluster draws; no `pictures` where that is not finite. `formed` has the first picture of each
    class by each version until then, oldest first: by the model that the group's first device had at that version;
    `narrowing` compares how much the pictures differ by these versions.
    """

    cluster: int
    devices: tuple[str, ...]
    version: int
    pictures: Pictures
    formed: Mapping[int, Sequence[Pixels]]
    narrowing: Narrowing

    @property
    def title(self) -> str:
        """What it is called."""
        return "in no cluster" if self.cluster == NO_CLUSTER else f"cluster {self.cluster}"


@dataclass(slots=True)
class Gallery:
    """The run's drawings. `shown` is called with those of each version."""

    bundle: Bundle
    devices: Sequence[str]
    shown: Callable[[Sequence[DrawnGroup]], None]
    groups: Sequence[DrawnGroup] = ()
    """What the last version draws, by cluster."""
    _formed: dict[str, dict[int, Sequence[Pixels]]] = field(default_factory=dict)
    _varieties: dict[str, dict[int, float]] = field(default_factory=dict)

    def add(self, number: int, version: bytes, clusters: Mapping[str, int]) -> None:
        """Draw with a version, a safetensors file, while devices are in these clusters."""
        found = []
        for cluster, devices in grouped(self.devices, clusters).items():
            drawer = drawer_of(self.bundle, version, cluster)
            pictures, differing = _pictures(drawer), variety(drawer, MEASURED, SEED)
            for name in devices:
                self._varieties.setdefault(name, {})[number] = differing
                if pictures:
                    self._formed.setdefault(name, {})[number] = [row[0] for row in pictures]
            compared = narrowing(cluster, number, self._varieties[devices[0]])
            formed = dict(self._formed.get(devices[0], {}))
            found.append(DrawnGroup(cluster, devices, number, pictures, formed, compared))
        self.groups = found
        self.shown(found)


def _pictures(drawer: Drawer) -> Pictures:
    try:
        return [
            [pixels_of(values, drawer.picture) for values in drawer.draw(label, SHOWN, SEED)]
            for label in drawer.classes
        ]
    except ConfigurationError:  # it draws what is no number
        return ()
