"""As how many samples an update counts by its noise, where owners of devices choose it. Pure.

Of independent estimates of one direction, the average with the least variance weighs each by one over its own variance
(docs/privacy.md derives it). An update of K steps, in each of which N samples are with probability q, with noise sigma
on each of P weights, has in units of (learning rate * clip)^2

    data  = K / (q N) * ((1 - q) + q K)     at most: each gradient is as long as the clip lets it
    noise = K * P * sigma^2 / (q N)^2
    1 / (data + noise) ~ N / (1 + ratio),   ratio = noise / data = P sigma^2 / (q N ((1 - q) + q K))
"""

import math

from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.limits import MAX_SAMPLES_PER_UPDATE
from fleet_protocol.privacy.sample_privacy import MOST_NOISE, SamplePrivacy
from fleet_protocol.task_description import TaskDescription


def check_noise_claim(noise: float | None, task: TaskDescription) -> None:
    """Check the noise multiplier that an update says, None where it says none.

    Raises:
        ProtocolError: owners do not choose it in this task, or none could have chosen this one.
    """
    if noise is None:
        return
    plan = task.sample_privacy
    if plan is None or not plan.owners_choose:
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS,
            f"the update says a noise of {noise:g}, and owners do not choose it in {task.task}; leave it out, or write"
            " owners_choose = true in [privacy.samples] of task.toml",
        )
    if not math.isfinite(noise) or (noise != 0 and not plan.told_noise <= noise <= MOST_NOISE):
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS,
            f"the update says a noise of {noise:g}; in {task.task} it is none (0), or {plan.told_noise:g} to"
            f" {MOST_NOISE:g}",
        )


def counted_samples(samples: int, noise: float | None, task: TaskDescription) -> int:
    """As how many samples an update counts that was trained on so many with this noise multiplier; None: the task's.

    Scaled so that one with the task's noise, on as many samples as fill a batch on average, counts as they are. It only
    falls with `noise`, only grows with `samples`, and is 1 to `MAX_SAMPLES_PER_UPDATE`.
    """
    plan = task.sample_privacy
    if plan is None or not plan.owners_choose:
        return samples
    usual = _ratio(plan.noise_multiplier, task.training.batch_size, plan, task)
    own = _ratio(plan.noise_multiplier if noise is None else noise, plan.sampling_rate * samples, plan, task)
    return min(max(1, round(samples * (1 + usual) / (1 + own))), MAX_SAMPLES_PER_UPDATE)


def _ratio(noise: float, batch: float, plan: SamplePrivacy, task: TaskDescription) -> float:
    """Of the variance that noise adds to an update's, to that of its data, where a batch has so many on average."""
    rate, steps = plan.sampling_rate, task.training.steps
    return task.trained_count * noise * noise / (batch * ((1 - rate) + rate * steps))
