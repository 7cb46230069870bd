"""What must hold of a device's samples: each is stored, or was dropped by the declared retention."""

from collections import Counter
from dataclasses import dataclass, field

from edge_agent.core.store_settings import Retention

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

    def check(self, stored: Stored, waiting: Stored) -> None:
        """Hold what is stored, and what waits apart for a schema, against what was taken."""
        before = self.accepted[: len(self.accepted) - len(waiting)]
        assert list(waiting.items()) == self.accepted[len(before) :], "not the newest wait for their schema"
        assert len(stored) == min(self.most, len(before)), (
            f"{len(stored)} samples are stored of {len(before)}, at most {self.most}"
        )
        assert stored.items() <= dict(before).items(), "a sample was never taken, or has another label"
        if self.retention == "newest":
            assert list(stored) == [number for number, _ in before[-self.most :]], "not the newest"
        if self.retention == "balanced":
            _check_classes(stored, before)


def _check_classes(stored: Stored, came: list[tuple[int, int]]) -> None:
    held = Counter(stored.values())
    for label, count in held.items():
        of_class = [number for number, its_label in came if its_label == label]
        assert [number for number in stored if stored[number] == label] == of_class[-count:], (
            "not the newest of a class"
        )
        assert count >= max(held.values()) - 1 or count == len(of_class), "a class makes room for a larger one"
