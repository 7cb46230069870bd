"""What the generators of a version's clusters draw, judged as benchmarks/split_gans judges drawn pictures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.split_gans.classifier import Classifier, trained_on
from benchmarks.split_gans.scenario import CLASSES, Domain, Labelled, Participant
from benchmarks.split_gans.scores import Scores, scores
from broker_coordinator.commands.export import model_of
from broker_coordinator.storage.journal_reader import JournalReader
from bundle_runtime.bundle import Bundle
from bundle_runtime.drawing import Drawer
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.codec import read_weights


@dataclass(frozen=True, slots=True)
class Judged:
    """A domain's pictures: those that the copy of `cluster` draws, in which most of its devices are."""

    cluster: int
    scores: Scores


@dataclass(frozen=True, slots=True)
class Judges:
    """`by_domain` know as many real pictures as are `drawn` of each domain."""

    by_domain: Mapping[str, Classifier]
    domains: Sequence[Domain]
    drawn: int

    @classmethod
    def of(cls, domains: Sequence[Domain], drawn: int) -> "Judges":
        """Train them."""
        return cls(
            {domain.name: trained_on(domain.training.take(np.arange(drawn)), 0) for domain in domains}, domains, drawn
        )

    def judged(
        self,
        journal: JournalReader,
        bundle: Bundle,
        devices: Sequence[Participant],
        clusters: Mapping[str, int],
        *,
        seed: int,
    ) -> dict[str, Judged]:
        """By domain, with the model that `tasks export` writes of the newest version."""
        found = {}
        for domain in self.domains:
            own = Counter(clusters.get(each.name, NO_CLUSTER) for each in devices if each.domain == domain.name)
            (cluster, _), *_ = own.most_common(1)
            model = model_of(journal, bundle.description.task, None, single=False, cluster=cluster)
            drawer = Drawer(bundle, read_weights(model, bundle.description.parameters))
            drawn = drawn_by(drawer, self.drawn // CLASSES, seed)
            shares = trained_on(drawn, seed).shares(domain.tested.pictures)
            of_drawn = self.by_domain[domain.name].shares(drawn.pictures)
            found[domain.name] = Judged(cluster, scores(shares, domain.tested.classes, of_drawn))
        return found


def drawn_by(drawer: Drawer, count: int, seed: int) -> Labelled:
    """`count` pictures of each class."""
    pictures = [picture.ravel() for label in range(CLASSES) for picture in drawer.draw(label, count, seed)]
    return Labelled(np.array(pictures, np.float32), np.repeat(np.arange(CLASSES), count))
