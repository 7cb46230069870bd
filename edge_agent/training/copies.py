"""Which copy a device trains, where devices choose: IFCA (Ghosh, Chung, Yin & Ramchandran 2020). Pure.

    cluster = the one whose copy has the least loss on the device's own samples

IFCA begins with models that are drawn apart. Here all copies begin as copy 0, so devices are drawn apart: as long as a
copy is untrained, each round trains one at random. From then on a device moves where another copy is better by more
than chance. One in no cluster that can't tell copies apart is drawn too: nobody trains copy 0.
The training worker runs it on a device, the simulator in its own process.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.samples import Samples
from edge_agent.training.validation import STANDARD_ERRORS, Evaluate
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.codec import ClusterView
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.task_description import TaskDescription

MOST_TRIED: Final = 256
"""Samples, spread over all that are stored: trying up to eight copies shall take less than a round."""
FEWEST_COMPARED: Final = 2
"""Of which a standard error can be told."""


def chosen_cluster(
    version: FloatVector,
    task: TaskDescription,
    samples: Samples,
    now: int,
    *,
    draw: tuple[int, int],
    evaluate: Evaluate,
) -> int:
    """The cluster that a round from `version` f32[V] trains, where devices choose; else `now`. `draw` are the device's
    random number and the round's.
    """
    plan = task.clusters
    if plan is None or not plan.by_devices:
        return now
    copies = {cluster: ClusterView.of(task, cluster).weights(version) for cluster in range(1, plan.most + 1)}
    untrained = ClusterView.of(task, NO_CLUSTER).weights(version).tobytes()
    own = plan.cluster(now)
    drawn = 1 + int(np.random.default_rng(draw).integers(plan.most))
    if any(copy.tobytes() == untrained for copy in copies.values()):
        return drawn
    best = _best(copies, own, _spread(samples), evaluate) if len(samples) else own
    return drawn if best == NO_CLUSTER else best


def _best(copies: dict[int, FloatVector], own: int, samples: Samples, evaluate: Evaluate) -> int:
    """The cluster of the best copy, if it is better than that of the device's own by more than chance makes of it; a
    device in none takes the best. `own` where no sample has a finite loss under any copy.

    The best copy has the fewest losses that are not finite, and of those the least mean of the others.
    """
    losses = np.array([evaluate(copy, samples).losses for copy in copies.values()], np.float64)
    losses = losses[:, np.isfinite(losses).any(axis=0)]  # of the other samples no copy knows anything
    if not losses.size:
        return own
    clusters = list(copies)
    failed = (~np.isfinite(losses)).sum(axis=1)
    means = [float(each[np.isfinite(each)].mean()) if np.isfinite(each).any() else np.inf for each in losses]
    best = min(range(len(clusters)), key=lambda place: (failed[place], means[place], place))
    if own not in copies:
        return clusters[best]
    now = clusters.index(own)
    is_better = failed[best] < failed[now] or _are_less(losses[best], losses[now])
    return clusters[best] if is_better else own


def _are_less(losses: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    """Whether losses float64[N] are less by more than `STANDARD_ERRORS` of the mean difference. It is taken sample by
    sample, so that what makes one sample harder than another falls out; of those alone where both are finite.
    """
    both = np.isfinite(losses) & np.isfinite(others)
    less = (others - losses)[both]
    if less.size < FEWEST_COMPARED:
        return False
    error = float(less.std(ddof=1)) / np.sqrt(less.size)
    return bool(less.mean() > STANDARD_ERRORS * error)


def _spread(samples: Samples) -> Samples:
    if len(samples) <= MOST_TRIED:
        return samples
    return samples.take(np.linspace(0, len(samples) - 1, MOST_TRIED).astype(np.int64))
