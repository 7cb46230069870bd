"""What a version's flat vector holds: a model's tensors and, with `[clusters]`, copies of some, or with `[posterior]`
a precision of each weight that has a Gaussian. Pure.

Copy 0 is the model's own tensor. Copies stand behind all copies 0, cluster by cluster, and running statistics behind
everything that trains, as in a model. Tensors of one block that the same updates hold are one group:

    group of a tensor = (its block, its copy; none where all devices share the tensor)
    samples of a group = those of the block, in an update of that copy's cluster or where the tensor is shared; else 0

A version is averaged group by group, as it is block by block without clusters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from fleet_protocol.cluster_plan import NO_CLUSTER, ClusterPlan, name_of_copy
from fleet_protocol.parameter import Parameter, first_statistic
from fleet_protocol.posterior_plan import PosteriorPlan, with_precisions
from fleet_protocol.split_plan import SplitPlan

Group = tuple[int, int | None]


@dataclass(frozen=True, slots=True)
class VersionLayout:
    """The tensors of a version in their order, as `parameters` whose `block` is the number of their group; `groups` are
    these, each the block and the copy. `copied` are the names of the model's parameters that have copies.
    """

    parameters: tuple[Parameter, ...]
    groups: tuple[Group, ...] = ()
    copied: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        parameters: Sequence[Parameter],
        clusters: ClusterPlan | None,
        split: SplitPlan | None,
        posterior: PosteriorPlan | None = None,
    ) -> "VersionLayout":
        """That of a model of these parameters; without `clusters` it holds just them, and with a `posterior` precisions
        of those that have a Gaussian.
        """
        if clusters is None:
            return cls(tuple(parameters if posterior is None else with_precisions(parameters, posterior)))
        copied = frozenset(each.name for each in parameters if clusters.copies(each.name, each.block, split))
        behind = first_statistic(parameters)
        found: list[tuple[Parameter, Group]] = []
        for part in (parameters[:behind], parameters[behind:]):
            found += [(each, (each.block, NO_CLUSTER if each.name in copied else None)) for each in part]
            found += [
                (each, (each.block, copy))
                for copy in range(1, clusters.most + 1)
                for each in part
                if each.name in copied
            ]
        groups = {group: number for number, group in enumerate(dict.fromkeys(group for _, group in found))}
        tensors = (
            msgspec.structs.replace(each, name=name_of_copy(each.name, group[1] or 0), block=groups[group])
            for each, group in found
        )
        return cls(tuple(tensors), tuple(groups), copied)

    @property
    def has_copies(self) -> bool:
        """Whether it is a task with `[clusters]`."""
        return bool(self.groups)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each tensor."""
        return tuple(tuple(parameter.shape) for parameter in self.parameters)

    @property
    def size(self) -> int:
        """Length of a version's flat vector."""
        return sum(parameter.size for parameter in self.parameters)

    @property
    def statistics(self) -> int:
        """How many values at its end are running statistics."""
        return sum(parameter.size for parameter in self.parameters[first_statistic(self.parameters) :])

    def name(self, parameter: str, cluster: int) -> str:
        """What the version calls the tensor that devices of a cluster have in place of the model's `parameter`."""
        return name_of_copy(parameter, cluster) if parameter in self.copied else parameter

    def samples(self, held: Sequence[float], cluster: int) -> tuple[float, ...]:
        """Of each group the samples that trained it, where an update of this cluster `held` so many of each block."""
        return tuple(held[block] if copy in (None, cluster) else 0 for block, copy in self.groups)
