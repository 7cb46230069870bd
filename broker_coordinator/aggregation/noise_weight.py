"""How much an update with noise counts beside others, where devices choose their noise. Pure.

The best weights of independent estimates of one direction are inverse variances. In units of (learning rate * clip)^2,
of K steps on N samples that each are in a batch with probability q, with noise sigma on each of P weights:

    data  = K / (q N) * ((1 - q) + q K)     at most: N drawn once for all steps, and batches drawn of them
    noise = K * P * sigma^2 / (q N)^2
    1 / (data + noise) ~ N / (1 + ratio),   ratio = noise / data = P sigma^2 / (q N ((1 - q) + q K))

`data` takes each gradient to be as long as the clip lets it; shorter ones would leave updates with noise still less.
That devices differ in what they see is in neither, and would bring weights closer together (docs/privacy.md).
"""

from fleet_protocol.privacy.sample_privacy import SamplePrivacy
from fleet_protocol.task_description import TaskDescription


def counted_samples(samples: int, noise: float | None, task: TaskDescription) -> int:
    """As how many samples an update counts that was trained on so many with this noise multiplier; None: the task's.

    Scaled so that one with the task's noise, on as many samples as fill a batch on average, counts as they are.
    """
    plan = task.sample_privacy
    if plan is None or not plan.optional:
        return samples
    usual = round(task.training.batch_size / plan.sampling_rate)
    own = plan.noise_multiplier if noise is None else noise
    share = (1 + _ratio(plan.noise_multiplier, usual, plan, task)) / (1 + _ratio(own, samples, plan, task))
    return max(1, round(samples * share))


def _ratio(noise: float, samples: int, plan: SamplePrivacy, task: TaskDescription) -> float:
    """Of the variance that noise adds to an update's, to that of its data."""
    rate, steps = plan.sampling_rate, task.training.steps
    return task.trained_count * noise**2 / (rate * samples * ((1 - rate) + rate * steps))
