"""As how many samples an update counts by its noise, where owners of devices choose it. Pure.

Of independent estimates of one direction, the average with the least variance weighs each by one over its own variance
(docs/privacy.md derives it). An update of K steps, in each of which N samples are with probability q, with noise sigma
on each of P weights, has in units of (learning rate * clip)^2

    data  = K / (q N) * ((1 - q) + q K)     at most: each gradient is as long as the clip lets it
    noise = K * P * sigma^2 / (q N)^2
    1 / (data + noise) ~ N / (1 + ratio),   ratio = noise / data = P sigma^2 / (q N ((1 - q) + q K))
"""

import math
from typing import Final

from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.privacy.sample_privacy import MOST_NOISE
from fleet_protocol.task_description import TaskDescription

UNITS: Final = 2**20
"""In so many parts of a sample without noise updates count: with noise, thousands of samples may count less than one.
All updates of a task count in the same ones, so nothing but their resolution depends on the number."""


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

    Where owners choose, it is 1 or more, in `UNITS` of a sample; it only falls with `noise` and only grows with
    `samples`. Elsewhere it is `samples`.
    """
    plan = task.sample_privacy
    if plan is None or not plan.owners_choose:
        return samples
    sigma = plan.noise_multiplier if noise is None else noise
    rate, steps = plan.sampling_rate, task.training.steps
    ratio = task.trained_count * sigma * sigma / (rate * samples * ((1 - rate) + rate * steps))
    return max(1, round(UNITS * samples / (1 + ratio)))
