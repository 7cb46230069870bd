"""What the intakes of a fleet's shards tell one another, and whoever leads, through the database's change counters."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from broker_coordinator.storage.change_counters import ARRIVALS, ENROLMENTS


class OtherShards:
    """Counts what happens here where there are several `shards`, and tells it from what happens in the others."""

    def __init__(self, shards: Sequence[str]) -> None:
        self._has_others = len(shards) > 1
        self._own = Counter[str]()
        self._elsewhere: dict[str, int] = {}

    def to_count(self, *, has_come: bool, has_enrolled: bool) -> list[str]:
        """The subjects that a batch counts up."""
        happened = {ARRIVALS: has_come, ENROLMENTS: has_enrolled}
        return [subject for subject, has in happened.items() if has and self._has_others]

    def counted(self, subjects: Iterable[str]) -> None:
        """A batch is committed that has counted these up. One whose commit is not answered seems to be another's."""
        self._own.update(subjects)

    def has_news(self, subject: str, counters: Mapping[str, int]) -> bool:
        """Whether another shard has counted a subject up since the last call; before the first one, it may have."""
        elsewhere = counters.get(subject, 0) - self._own[subject]
        is_new = elsewhere != self._elsewhere.get(subject)
        self._elsewhere[subject] = elsewhere
        return self._has_others and is_new
