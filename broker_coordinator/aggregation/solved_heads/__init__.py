"""How a head follows from the statistics of all devices: one short file a solver, in one table. Pure."""

from collections.abc import Callable

from broker_coordinator.aggregation.solved_heads.gaussian import solve_gaussian
from broker_coordinator.aggregation.solved_heads.head import Head
from broker_coordinator.aggregation.solved_heads.means import solve_means
from broker_coordinator.aggregation.solved_heads.pooling import Pooled, most_counted, pooled
from broker_coordinator.aggregation.solved_heads.refining import refined
from broker_coordinator.aggregation.solved_heads.ridge import solve_ridge
from fleet_protocol.solved_head import SolvedHead, Solver

SOLVERS: dict[Solver, Callable[[Pooled, SolvedHead], Head]] = {
    "ridge": solve_ridge,
    "means": solve_means,
    "gaussian": solve_gaussian,
}


def solve(statistics: Pooled, plan: SolvedHead) -> Head:
    """The head of a task's plan."""
    return SOLVERS[plan.solver](statistics, plan)


__all__ = ["SOLVERS", "Head", "Pooled", "most_counted", "pooled", "refined", "solve"]
