"""How well a fleet's generators draw: real pictures are told apart by what the drawn ones look like.

A classifier that has seen nothing but drawn pictures reads real ones that no device has: the class of most of the
nearest drawn ones. What is blurred, missing or of the wrong class, it gets wrong (the classification accuracy score of
Ravuri & Vinyals 2019, with a simpler classifier).
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from bundle_runtime.bundle import Bundle
from bundle_runtime.samples import Samples
from fleet_protocol.bundle_files import WEIGHTS_FILE
from fleet_protocol.codec import read_weights, write_weights
from fleet_protocol.codec.cluster_copies import with_copies
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.parameter import Parameter
from workbench.data.head_rounds import Rounds
from workbench.data.two_domains import DomainData
from workbench.demo.drawn.groups import drawer_of, grouped
from workbench.report.privacy_told import Told

DRAWN: Final = 40
"""Pictures of each class that the classifier has seen."""
NEAREST: Final = 3
SEED: Final = 0


class DrawingMeasurement:
    """Judges versions of a task that draws, as the cluster of each device has them."""

    is_solved = False

    def __init__(self, bundle: Bundle, data: DomainData, devices: Sequence[str]) -> None:
        """`devices` are named in the order of the parts of `data`."""
        self._bundle = bundle
        self._data = data
        self._domain_of = dict(zip(devices, data.of_device, strict=True))

    @property
    def parameters(self) -> int:
        """Values of one model."""
        return self._bundle.description.parameter_count

    @property
    def tensors(self) -> Sequence[Parameter]:
        """What a version holds."""
        return self._bundle.description.version.parameters

    @property
    def dense_bytes(self) -> int:
        """What one update would cost as float32 weights."""
        return 4 * self.parameters

    @property
    def held_out_samples(self) -> int:
        """Pictures that no device has."""
        return len(self._data.held_out)

    @property
    def averaged_versions(self) -> int | None:
        """How many versions the model to use is the mean of, where the task says it."""
        return self._bundle.description.averaged_versions

    def told(self, *, rounds: int, versions: int, clip: float | None) -> list[Told]:
        """No task with parts bounds it."""
        return []

    def rounds(self) -> Rounds | None:
        """No head is solved."""
        return None

    def accuracy(self, version: bytes | None, clusters: Mapping[str, int]) -> float:
        """The mean over devices: which share of its domain's real pictures is read right by what its cluster's model
        draws; of a model that draws no finite values, none. Without a `version`, a safetensors file, the untrained one.
        """
        weights = self._untrained() if version is None else version
        right: list[float] = []
        for cluster, devices in grouped(list(self._domain_of), clusters).items():
            drawn = self._drawn(weights, cluster)
            found = {domain: self._right(drawn, domain) for domain in {self._domain_of[name] for name in devices}}
            right += [found[self._domain_of[name]] for name in devices]
        return float(np.mean(right))

    def central_accuracy(self, _updates: int) -> float:
        """The same by a classifier that has seen the devices' real pictures, which is as much as drawn ones can be
        worth; the mean over devices.
        """
        found = []
        for domain in self._data.of_device:
            parts = [part for part, own in zip(self._data.parts, self._data.of_device, strict=True) if own == domain]
            inputs, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("inputs", "labels"))
            found.append(self._right(Samples(inputs, labels), domain))
        return float(np.mean(found))

    def _drawn(self, version: bytes, cluster: int) -> Samples | None:
        drawer = drawer_of(self._bundle, version, cluster)
        try:
            pictures = [list(drawer.draw(label, DRAWN, SEED)) for label in drawer.classes]
        except ConfigurationError:
            return None
        inputs = np.array(pictures, np.float32).reshape(len(pictures) * DRAWN, -1)
        return Samples(inputs, np.repeat(np.array(drawer.classes, np.int64), DRAWN))

    def _right(self, seen: Samples | None, domain: int) -> float:
        if seen is None:
            return 0.0
        held_out = self._data.domains[domain].held_out
        classifier = KNeighborsClassifier(NEAREST).fit(seen.inputs, seen.labels)
        return float(np.mean(classifier.predict(held_out.inputs) == held_out.labels))

    def _untrained(self) -> bytes:
        description = self._bundle.description
        model = read_weights(self._bundle.files[WEIGHTS_FILE], description.parameters)
        return write_weights(with_copies(model, description), description.version.parameters)
