"""Error feedback: what compression leaves out of one update is remembered for the next ones.

Chosen in task.toml by `feedback`; one short file each. Sparse Ternary Compression (Sattler et al. 2019) is `residual`
with top-k selection and ternary values, which is the default.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from edge_agent.training.feedback.ef21 import Ef21Feedback
from edge_agent.training.feedback.factor import FactorFeedback
from edge_agent.training.feedback.interface import ErrorFeedback, StateLayout
from edge_agent.training.feedback.momentum import MomentumFeedback
from edge_agent.training.feedback.residual import ResidualFeedback
from fleet_protocol.codec.sparse import IndexVector
from fleet_protocol.update_plan import UpdatePlan

FEEDBACKS: Final[Mapping[str, type[ResidualFeedback] | type[MomentumFeedback] | type[Ef21Feedback]]] = {
    "residual": ResidualFeedback,
    "momentum": MomentumFeedback,
    "ef21": Ef21Feedback,
}


def recall(
    plan: UpdatePlan, state: bytes, parameters: int, life: int, factor: IndexVector | None = None
) -> ErrorFeedback:
    """The task's error feedback as the last round left it; an empty `state` is a device's first round of a new `life`.
    With the places of a `factor`, these are its estimate, and the others have a residual.

    `life` is at least 1, and another one whenever a device has lost its memory. A state that can't be one, as it holds
    NaN, infinity or another number of values, is lost too.
    """
    feedback = FEEDBACKS[plan.feedback]
    usable = state if _is_usable(state, feedback.layout, parameters) else b""
    if factor is not None:
        return FactorFeedback(plan, usable, parameters, life, factor)
    return feedback(plan, usable, parameters, life)


def _is_usable(state: bytes, layout: StateLayout, parameters: int) -> bool:
    size = len(state) - layout.header_bytes
    if size <= 0 or size % (layout.dtype.itemsize * parameters):
        return False
    return bool(np.isfinite(np.frombuffer(state, layout.dtype, offset=layout.header_bytes)).all())


__all__ = ["FEEDBACKS", "ErrorFeedback", "StateLayout", "recall"]
