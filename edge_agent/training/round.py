"""What a round computes: train, join the error feedback of earlier rounds, compress. Pure.

The training worker runs it on a device, the simulator in its own process.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bundle_runtime.samples import Samples
from edge_agent.training.compression import pack, remember
from edge_agent.training.divergence import divergence
from edge_agent.training.engine import OnProgress, Rates, TrainingEngine, ignore_progress, plan_batches
from edge_agent.worker.contract import TrainingResult
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.remedies import STEADIER_TRAINING


class DivergedError(Exception):
    """Loss or weights are no longer finite; says what was seen, and what to do."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """What earlier rounds of a device left to this one.

    `residual` is the state of the error feedback, empty at first, which then begins the life `life`; `returned` are
    rejected updates as they were packed; `seed` counts the rounds and picks the batches.
    """

    residual: bytes
    returned: Sequence[bytes]
    seed: int
    life: int


def train_round(
    engine: TrainingEngine,
    weights: FloatVector,
    samples: Samples,
    task: TaskDescription,
    earlier: Earlier,
    *,
    on_progress: OnProgress = ignore_progress,
) -> TrainingResult:
    """Train from `weights` f32[P] on all of `samples`, and pack what was learned.

    Raises:
        DivergedError: loss or weights are no longer finite.
        EngineError: bundle and samples contradict each other.
        ProtocolError: a returned update is damaged.
    """
    steps = task.training.steps
    plan = plan_batches(len(samples), steps, task.training.batch_size, earlier.seed)
    trained, losses = engine.train(weights, samples, plan, Rates.planned(task.training), on_progress)
    if diverged := divergence(losses, trained, samples, plan, task.training.learning_rate):
        raise DivergedError(str(diverged))
    memory = remember(task, earlier.residual, earlier.returned, earlier.life)
    total = memory.offer(trained - weights)
    if not np.isfinite(total).all():
        raise DivergedError(f"the update and what earlier ones left behind exceed float32 in sum; {STEADIER_TRAINING}")
    packed = pack(total, memory, task, earlier.seed)
    return TrainingResult(
        packed=packed,
        residual=memory.state(),
        samples=len(samples),
        steps=steps,
        trained_through=samples.newest,
        loss=float(losses.mean()),
        life=memory.life,
    )
