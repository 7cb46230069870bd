"""What must hold of a device's samples: each is stored, or was dropped by the declared retention."""

from collections import Counter
from dataclasses import dataclass, field

from edge_agent.configuration import Retention

Stored = dict[int, int]
"""By the number that stands in a sample's inputs, its label."""


@dataclass(slots=True)
class SampleBook:
    """One task of one device. `most` is what it keeps."""

    retention: Retention
    most: int
    accepted: list[tuple[int, int]] = field(default_factory=list)
    """Number and label of each sample that the agent has taken."""
    refused: Counter[str] = field(default_factory=Counter)
    """Of those that it has not, how many for which reason."""

    @property
    def dropped(self) -> int:
        """How many had to make room."""
        return max(0, len(self.accepted) - self.most)

    def check(self, stored: Stored) -> None:
        """Hold what is stored against what was taken."""
        assert len(stored) == min(self.most, len(self.accepted)), (
            f"{len(stored)} samples are stored of {len(self.accepted)}, at most {self.most}"
        )
        labels = dict(self.accepted)
        assert stored.items() <= labels.items(), "a sample was never taken, or has another label"
        if self.retention == "newest":
            assert list(stored) == [number for number, _ in self.accepted[-self.most :]], "not the newest"
        if self.retention == "balanced":
            self._check_classes(Counter(stored.values()), stored)

    def _check_classes(self, held: Counter[int], stored: Stored) -> None:
        for label, count in held.items():
            came = [number for number, its_label in self.accepted if its_label == label]
            newest = came[-count:]
            assert [number for number in stored if stored[number] == label] == newest, (
                "not the newest of its class",
                label,
                stored,
                self.accepted,
            )
            assert count >= max(held.values()) - 1 or count == len(came), "a class makes room for a larger one"
