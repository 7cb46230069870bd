"""A device's weights out of a version that holds more than a model, and its changes back into it. Pure.

    weights f32[P]  = the tensors of a version f32[V] that devices of the cluster have
    changes f32[V]  = changes f32[P] in the places of those tensors, and nothing in all others

A version holds copies for clusters, or with `[posterior]` precisions of some means, which are the model. Without
either, both are the vector itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.codec.held_blocks import Places
from fleet_protocol.codec.sparse import FloatVector, SparseUpdate
from fleet_protocol.codec.weights import read_weights
from fleet_protocol.parameter import Parameter, first_statistic
from fleet_protocol.posterior_plan import precision_of
from fleet_protocol.task_description import TaskDescription


@dataclass(frozen=True, slots=True)
class ClusterView:
    """Where the tensors of one cluster's model lie in a version: `trained` of those that train, `statistics` of the
    running statistics behind them, each among its like.
    """

    trained: Places
    statistics: Places

    @classmethod
    def of(cls, task: TaskDescription, cluster: int = NO_CLUSTER) -> "ClusterView":
        """That of a cluster, or of devices without one."""
        layout = task.version
        model, whole = first_statistic(task.parameters), first_statistic(layout.parameters)
        names = [layout.name(each.name, cluster) for each in task.parameters]
        return cls(
            _places(names[:model], layout.parameters[:whole]),
            _places(names[model:], layout.parameters[whole:]),
        )

    def weights(self, version: FloatVector) -> FloatVector:
        """The model f32[P] of the cluster in a version f32[V]."""
        trained, statistics = np.split(version, [self.trained.whole])
        if self.trained.are_all and self.statistics.are_all:
            return version
        return np.concatenate([self.trained.part(trained), self.statistics.part(statistics)])

    def changes(self, update: SparseUpdate) -> SparseUpdate:
        """Changes of the trained tensors of the model, in the places of those of the version."""
        if self.trained.are_all or not update.indices.size:
            return update
        places = self.trained.in_whole(update.indices)
        order = np.argsort(places, kind="stable")  # shared tensors stand in front of every copy
        return SparseUpdate(places[order], update.values[order])


def read_model(version: bytes, task: TaskDescription, cluster: int = NO_CLUSTER) -> FloatVector:
    """The model f32[P] of a cluster, out of a version's safetensors file.

    Raises:
        ProtocolError: as `read_weights`.
    """
    return ClusterView.of(task, cluster).weights(read_weights(version, task.version.parameters))


def with_copies(model: FloatVector, task: TaskDescription) -> FloatVector:
    """A version f32[V] of which every copy is that of the model f32[P], and every precision the prior's."""
    ends = list(accumulate(each.size for each in task.parameters))
    tensors = dict(zip((each.name for each in task.parameters), np.split(model, ends[:-1]), strict=True))
    for cluster in range(1, task.clusters.most + 1) if task.clusters else ():
        tensors |= {task.version.name(each.name, cluster): tensors[each.name] for each in task.parameters}
    if task.posterior is not None:
        deviations = task.posterior.deviations(task.parameters)
        tensors |= {
            precision_of(each).name: np.full(each.size, deviation, np.float32)
            for each, deviation in zip(task.parameters, deviations, strict=True)
            if deviation
        }
    return np.concatenate([tensors[each.name] for each in task.version.parameters])


def _places(names: Sequence[str], tensors: Sequence[Parameter]) -> Places:
    """Those of the tensors of these names, in this order, among all `tensors`."""
    starts = list(accumulate((each.size for each in tensors), initial=0))
    places = {each.name: (start, each.size) for each, start in zip(tensors, starts, strict=False)}
    own = list(accumulate((places[name][1] for name in names), initial=0))
    shifts = [places[name][0] - start for name, start in zip(names, own, strict=False)]
    return Places(np.array(own[:-1], np.int64), np.array(shifts, np.int64), own[-1], starts[-1])
