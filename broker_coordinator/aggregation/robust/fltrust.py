"""FLTrust (Cao, Fang, Liu & Gong 2021, algorithm 2): each update weighs what a trusted one has in common with it.

    trust_i = max(0, cos(v, x_i))
    result = sum(trust_i * |v| / |x_i| * x_i) / sum(trust_i)

v is the direction of the devices that the task trusts, in the place of the update that the paper's server computes of
its root data.
"""

import numpy as np

from broker_coordinator.aggregation.robust.rule import Compared
from broker_coordinator.aggregation.robust.stack import Vector


def fltrust(compared: Compared) -> Vector:
    """See above; 0 where nothing is trusted, or has anything in common with it."""
    stack, trusted = compared.stack, compared.trusted
    trust = np.maximum(stack.cosines_to(trusted), 0)
    total = float(np.sum(trust))
    if not total:
        return np.zeros(stack.size)
    length = float(np.sqrt(np.sum(np.square(trusted))))
    norms = stack.norms()
    rescaled = np.divide(length, norms, out=np.zeros_like(norms), where=norms > 0)
    return stack.combined(trust / total * rescaled)
