"""What a task with privacy of samples promises, and what updates have told so far, as `tasks show` says it."""

from broker_coordinator.aggregation.privacy_loss import tight_epsilon
from broker_coordinator.storage.overview import Overview
from fleet_protocol.task_description import TaskDescription


def privacy_told(overview: Overview, task: TaskDescription) -> dict[str, object]:
    """Of the device with most accepted updates of the task's bundle, as if a sample had been in all of its rounds.

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
            "rounds_of_a_sample": promised.most_steps() // steps,
            "most_rounds_of_a_device": rounds,
            "epsilon": promised.epsilon_after(rounds * steps) if rounds else 0.0,
            "tight_epsilon": tight_epsilon(promised.mechanism, rounds * steps, promised.delta),
        }
    }
