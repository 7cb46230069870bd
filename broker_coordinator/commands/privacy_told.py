"""What a task with privacy promises, and what was told so far, as `tasks show` says it."""

from sqlalchemy import Engine

from broker_coordinator.admission.participation import why_spent
from broker_coordinator.aggregation.privacy_loss import gaussian_epsilon, tight_epsilon
from broker_coordinator.storage.noise_seeds import read_series
from broker_coordinator.storage.overview import Overview
from fleet_protocol.privacy.noise_shares import epsilon_told
from fleet_protocol.task_description import TaskDescription


def privacy_told(overview: Overview, task: TaskDescription) -> dict[str, object]:
    """Of the device with most accepted updates of the task's bundle, as if a sample had been in all of its rounds, and
    these had the task's noise.

    `epsilon` is what devices count by, `tight_epsilon` what dp-accounting finds of the same steps; None without it.
    """
    promised = task.sample_privacy
    if promised is None:
        return {}
    steps = task.training.steps
    rounds = overview.most_updates_of_a_device(task.task)
    return {
        "sample_privacy": {
            "promised_epsilon": promised.epsilon,
            "delta": promised.delta,
            "noise_multiplier": round(promised.noise_multiplier, 4),
            "sampling_rate": promised.sampling_rate,
            "clip": promised.clip,
            "owners_choose": promised.owners_choose,
            "rounds_of_a_sample": promised.most_steps() // steps,
            "most_rounds_of_a_device": rounds,
            "epsilon": promised.epsilon_told(rounds, steps),
            "tight_epsilon": tight_epsilon(promised.mechanism, promised.steps_told(rounds, steps), promised.delta),
        }
    }


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


def device_privacy_told(engine: Engine, task: TaskDescription) -> dict[str, object]:
    """Of a task whose versions hide each device: what those of its bundle have told of one at most."""
    plan = task.device_privacy
    if plan is None:
        return {}
    series = read_series(engine, task.task, plan)
    made = series.made
    return {
        "device_privacy": {
            "promised_epsilon": plan.epsilon,
            "delta": plan.delta,
            "noise": plan.noise,
            "bands": plan.bands,
            "noise_multiplier": round(plan.noise_multiplier, 4),
            "clip": plan.clip,
            "at_most": plan.at_most,
            "versions_between": plan.versions_between,
            "versions_planned": plan.versions,
            "versions_told": made,
            "epsilon": plan.epsilon_after(made),
            "tight_epsilon": gaussian_epsilon(plan.mechanism_of(made), plan.delta) if made else 0.0,
            "ended": why_spent(plan, made, renewed=series.renewed),
        }
    }
