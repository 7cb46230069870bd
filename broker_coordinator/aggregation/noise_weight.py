"""How much an update with noise counts beside others, where devices choose their noise. Pure.

The best weights of independent estimates of one direction are inverse variances. In units of (learning rate * clip)^2,
of K steps on N samples that each are in a batch with probability q, with noise sigma on each of P weights:

    data  = K / (q N) * ((1 - q) + q K)     at most: N drawn once for all steps, and batches drawn of them
    noise = K * P * sigma^2 / (q N)^2
    1 / (data + noise) ~ N / (1 + ratio),   ratio = noise / data = P sigma^2 / (q N ((1 - q) + q K))

`data` takes each gradient to be as long as the clip lets it; shorter ones would leave updates with noise still less.
That devices differ in what they see is in neither, and would bring weights closer together (docs/privacy.md).
"""

import math

from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.limits import MAX_SAMPLES_PER_UPDATE
from fleet_protocol.privacy.sample_privacy import MOST_NOISE, SamplePrivacy
from fleet_protocol.task_description import TaskDescription


def check_noise_claim(noise: float | None, task: TaskDescription) -> None:
    """Check the noise multiplier that an update says, None where it says none.

    Raises:
        ProtocolError: devices of the task do not choose theirs, or none could have chosen this one.
    """
    if noise is None:
        return
    plan = task.sample_privacy
    if plan is None or not plan.optional:
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS,
            f"the update says a noise of {noise:g}; devices of {task.task} do not choose theirs: write optional = true"
            " in its [privacy.samples], or send none",
        )
    if not math.isfinite(noise) or (noise != 0 and not plan.told_noise <= noise <= MOST_NOISE):
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS,
            f"the update says a noise of {noise:g}; devices of {task.task} add none (0), or {plan.told_noise:g} to"
            f" {MOST_NOISE:g}",
        )


def counted_samples(samples: int, noise: float | None, task: TaskDescription) -> int:
    """As how many samples an update counts that was trained on so many with this noise multiplier; None: the task's.

    Scaled so that one with the task's noise, on as many samples as fill a batch on average, counts as they are. It only
    falls with `noise`, and is 1 to `MAX_SAMPLES_PER_UPDATE`.
    """
    plan = task.sample_privacy
    if plan is None or not plan.optional:
        return samples
    usual = _ratio(plan.noise_multiplier, task.training.batch_size, plan, task)
    own = _ratio(plan.noise_multiplier if noise is None else noise, plan.sampling_rate * samples, plan, task)
    return min(max(1, round(samples * (1 + usual) / (1 + own))), MAX_SAMPLES_PER_UPDATE)


def _ratio(noise: float, batch: float, plan: SamplePrivacy, task: TaskDescription) -> float:
    """Of the variance that noise adds to an update's, to that of its data, where a batch has so many on average."""
    rate, steps = plan.sampling_rate, task.training.steps
    return task.trained_count * noise**2 / (batch * ((1 - rate) + rate * steps))
