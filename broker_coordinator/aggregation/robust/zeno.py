"""Zeno++ (Xie, Koyejo & Gupta 2020, algorithm 1): an update counts only if a trusted gradient says that it helps.

    g_i = |v| / |x_i| * x_i
    score_i = gamma * <v, g_i> - rho * |g_i|^2 + gamma * epsilon          first-order estimate of what the loss falls by
    result = mean of the g_i whose score is at least 0

v is the direction of the devices that the task trusts, in the place of the negative gradient that the paper's server
computes of held-out data every few versions. As |g_i| = |v|, the score is at least 0 where

    cos(v, x_i) >= rho / gamma - epsilon / |v|^2 = LEAST_COSINE
"""

from typing import Final

import numpy as np

from broker_coordinator.aggregation.robust.rule import Compared
from broker_coordinator.aggregation.robust.stack import Vector

LEAST_COSINE: Final = 0.05
"""Above 0, so that what says nothing of the loss, as noise, does not count. Chosen on digits."""


def zeno(compared: Compared) -> Vector:
    """See above; 0 where nothing is trusted, or counts."""
    stack, trusted = compared.stack, compared.trusted
    counts = stack.cosines_to(trusted) >= LEAST_COSINE
    norms = stack.norms()
    length = float(np.sqrt(np.sum(np.square(trusted))))
    rescaled = np.divide(length, norms, out=np.zeros_like(norms), where=counts & (norms > 0))
    return stack.combined(rescaled / max(1, int(np.sum(counts))))
