"""What a task with privacy promises, and what was told so far, as `tasks show` says it."""

from collections import Counter
from collections.abc import Mapping

from broker_coordinator.admission.participation import why_spent
from broker_coordinator.aggregation.privacy_loss import gaussian_epsilon, tight_epsilon
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.noise_seeds import read_series
from broker_coordinator.storage.overview import Overview
from fleet_protocol.privacy.noise_shares import epsilon_told
from fleet_protocol.privacy.renyi import Mechanism, StepsTaken, divergences_of, epsilon_of
from fleet_protocol.privacy.sample_privacy import SamplePrivacy
from fleet_protocol.task_description import TaskDescription


def privacy_told(overview: Overview, task: TaskDescription) -> dict[str, object]:
    """Of the device with most accepted updates of the task's bundle: of a sample that was in as many of its rounds as
    it may be, with the task's noise.

    `epsilon` is what devices count by, `tight_epsilon` what dp-accounting finds of the same steps; None without it.
    Where owners choose, both are of devices that say the task's noise or more; `by_noise` tells the kinds apart.
    """
    promised = task.sample_privacy
    if promised is None:
        return {}
    steps = task.training.steps
    said = overview.noise_of_devices(task.task) if promised.owners_choose else None
    if said is None:
        rounds = overview.most_updates_of_a_device(task.task)
    else:
        rounds = max((counts.total() for counts in said.values() if 0.0 not in counts), default=0)
    return {
        "sample_privacy": {
            "promised_epsilon": promised.epsilon,
            "delta": promised.delta,
            "noise_multiplier": round(promised.noise_multiplier, 4),
            "sampling_rate": promised.sampling_rate,
            "clip": promised.clip,
            "rounds_of_a_sample": promised.most_steps() // steps,
            "most_rounds_of_a_device": rounds,
            "epsilon": promised.epsilon_told(rounds, steps),
            "tight_epsilon": tight_epsilon(promised.mechanism, promised.steps_told(rounds, steps), promised.delta),
        }
        | ({} if said is None else {"by_noise": _by_noise(said, promised, steps)})
    }


def _by_noise(
    said: Mapping[str, Counter[float | None]], promised: SamplePrivacy, steps: int
) -> dict[str, dict[str, object]]:
    """Of devices that say the same kind of noise in their accepted updates; of those that say several, the least
    counts. `epsilon` is None where some updates say that they have none.
    """
    least = {device: min(_noise(noise, promised) for noise in counts) for device, counts in said.items()}
    kinds = {
        "none": [device for device, noise in least.items() if noise == 0],
        "task": [device for device, noise in least.items() if noise == promised.told_noise],
        "more": [device for device, noise in least.items() if noise > promised.told_noise],
    }
    return {
        kind: {
            "devices": len(devices),
            "least_noise_multiplier": min(least[device] for device in devices),
            "most_rounds_of_a_device": max(said[device].total() for device in devices),
            "epsilon": None if kind == "none" else max(_told(said[device], promised, steps) for device in devices),
        }
        for kind, devices in kinds.items()
        if devices
    }


def _noise(said: float | None, promised: SamplePrivacy) -> float:
    return promised.told_noise if said is None else said


def _told(counts: Counter[float | None], promised: SamplePrivacy, steps: int) -> float:
    """What updates with so much noise tell of a sample at most."""
    if set(counts) <= {None, promised.told_noise}:
        return promised.epsilon_told(counts.total(), steps)
    rate = promised.sampling_rate
    taken = [StepsTaken(Mechanism(_noise(noise, promised), rate), rounds * steps) for noise, rounds in counts.items()]
    return min(promised.epsilon, epsilon_of(divergences_of(taken), promised.delta))


def noise_shares_told(overview: Overview, task: TaskDescription) -> dict[str, object]:
    """Of a task whose devices add noise behind their masks: what the device tells of itself that most updates have come
    of, those of void cohorts among them. Each device counts those too that were refused, or never came.
    """
    plan = task.masks
    noised = plan.noised_updates(task.trained_count) if plan else None
    if plan is None or plan.noise is None or noised is None:
        return {}
    updates = overview.most_updates_of_a_device(task.task)
    return {
        "noise_shares": {
            "promised_epsilon": plan.noise.epsilon,
            "delta": plan.noise.delta,
            "norm": plan.noise.norm,
            "at_most": plan.noise.at_most,
            "deviation_of_a_device": plan.deviation,
            "devices_counted_on": noised.honest,
            "noise_multiplier": round(1 / noised.moved, 4),
            "most_updates_of_a_device": updates,
            "epsilon": epsilon_told([noised.taken(updates)], plan.noise.delta),
        }
    }


def device_privacy_told(journal: JournalReader, task: TaskDescription) -> dict[str, object]:
    """Of a task whose versions hide each device: what those of its bundle have told of one at most."""
    plan = task.device_privacy
    if plan is None:
        return {}
    series = read_series(journal.engine, task.task, plan)
    made = series.made
    clip = plan.clip_after(journal.overview.newest_clip(task.task))
    return {
        "device_privacy": {
            "promised_epsilon": plan.epsilon,
            "delta": plan.delta,
            "noise": plan.noise,
            "bands": plan.bands,
            "noise_multiplier": round(plan.noise_multiplier, 4),
            "clip": plan.clip,
            **({} if clip is None else {"clip_now": clip}),
            "at_most": plan.at_most,
            "versions_between": plan.versions_between,
            "versions_planned": plan.versions,
            "versions_told": made,
            "epsilon": plan.epsilon_after(made),
            "tight_epsilon": gaussian_epsilon(plan.mechanism_of(made), plan.delta) if made else 0.0,
            "ended": why_spent(plan, made, renewed=series.renewed),
        }
    }
