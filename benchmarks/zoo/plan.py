"""Which cases the zoo runs: tasks times partitions times fleets times seeds, without those that would be the same."""

from collections.abc import Iterator, Sequence

from benchmarks.zoo.case import Case
from benchmarks.zoo.partitions import PartitionName, applies, fleet_size
from benchmarks.zoo.tasks import Split
from fleet_protocol.sample_schema import LabelKind


def cases_of(
    task: str,
    kind: LabelKind,
    split: Split,
    *,
    partitions: Sequence[PartitionName],
    devices: Sequence[int],
    seed: int,
) -> Iterator[Case]:
    """A task's cases of one seed. Where samples are too few for two of the fleets, the smaller one stands for both."""
    sizes = {fleet_size(len(split.train), count): count for count in sorted(devices, reverse=True)}
    for partition in partitions:
        if applies(partition, kind):
            for count in sorted(sizes.values()):
                yield Case(task, partition, count, seed)
