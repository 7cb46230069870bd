"""Which rounds are sent: rules that a task may have, each by a number that the device knows by itself. Pure.

`changed` follows event-triggered communication with a personal threshold (EF-HC, Zehtabi et al. 2022), `relevant`
CMFL (Wang et al. 2019). A round that is not sent leaves the residual as it was (docs/sending.md says why).
"""

import numpy as np

from bundle_runtime.runner import Evaluation
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.sending_plan import SendingPlan

NORM_DECAY = 0.9
"""Of the running mean of a device's norms: about ten rounds."""


def running_norm(before: float, norm: float) -> float:
    """The running mean of norms with a round's; `before` is 0 where there was none."""
    return norm if before == 0 else NORM_DECAY * before + (1 - NORM_DECAY) * norm


def why_unchanged(plan: SendingPlan, norm: float, usual: float) -> str:
    """Why a round that changed the weights by `norm` is not sent, empty where it is; `usual` is the running mean before
    it. As the mean follows, a device whose norms stay alike sends again, whatever they were before.
    """
    if plan.rule != "changed" or norm >= plan.threshold * usual:
        return ""
    return f"its change has norm {norm:.3g}, below {plan.threshold:g} of the usual {usual:.3g}"


def why_irrelevant(plan: SendingPlan, delta: FloatVector, global_change: FloatVector | None) -> str:
    """Why a round's `delta` f32[P] is not sent, empty where it is; `global_change` f32[P] is the fleet's since the
    device's last round, if it is known. What the fleet left alone agrees and disagrees with nothing.
    """
    if plan.rule != "relevant" or global_change is None:
        return ""
    changed = global_change != 0
    if not changed.any():
        return ""
    agreeing = float((np.sign(delta[changed]) == np.sign(global_change[changed])).mean())
    if agreeing >= plan.threshold:
        return ""
    return f"{agreeing:.0%} of its signs agree with the last global change, {plan.threshold:.0%} are wanted"


def why_no_better(plan: SendingPlan, before: Evaluation, after: Evaluation) -> str:
    """Why a round is not sent that did so on the same validation samples, empty where it is."""
    if plan.rule != "better":
        return ""
    if before.correct is not None and after.correct is not None:
        gain, measure = float(np.mean(after.correct) - np.mean(before.correct)), "the share of right answers rose by"
    else:
        loss = float(np.mean(before.losses))
        gain, measure = (loss - float(np.mean(after.losses))) / max(abs(loss), 1e-12), "the loss fell by a share of"
    if gain >= plan.threshold:
        return ""
    return f"{measure} {gain:.3g} on {after.losses.size} validation samples, {plan.threshold:g} is wanted"
