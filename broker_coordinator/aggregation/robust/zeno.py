"""Zeno++ (Xie, Koyejo & Gupta 2020, algorithm 1): an update counts only if a trusted gradient says that it helps.

    g_i = |v| / |x_i| * x_i
    score_i = gamma * <v, g_i> - rho * |g_i|^2 + gamma * epsilon          first-order estimate of what the loss falls by
    result = mean of the g_i whose score is above 0

v is the direction of the devices that the task trusts, in the place of the negative gradient that the paper's server
computes of held-out data every few versions. As |g_i| = |v|, the score is above 0 where

    cos(v, x_i) > rho / gamma - epsilon / |v|^2 = LEAST_COSINE
"""

from typing import Final

import numpy as np

from broker_coordinator.aggregation.robust.rule import Compared
from broker_coordinator.aggregation.robust.stack import Vector

LEAST_COSINE: Final = 0.0
"""Of 0, 0.05, 0.1 and 0.2 the best on digits: sparse updates share few entries, so that honest ones have small cosines
too. An update that shares none does not count."""


def zeno(compared: Compared) -> Vector:
    """See above; 0 where nothing is trusted, or counts."""
    stack, trusted = compared.stack, compared.trusted
    counts = stack.cosines_to(trusted) > LEAST_COSINE
    length = float(np.sqrt(np.sum(np.square(trusted))))
    norms = stack.norms()
    rescaled = np.divide(length, norms, out=np.zeros_like(norms), where=counts)
    return stack.combined(rescaled / max(1, int(np.sum(counts))))
