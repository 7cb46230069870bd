"""What a round tells where a task asks for prompts: of all stored samples, as much as task and owner say. Pure.

It is told again when a class comes, goes or doubles, when the style is another, or when the coordinator refused it. A
class or group of few samples is not spoken of: the mean of one would be a sample's features.
"""

import numpy as np
from numpy.typing import NDArray

from edge_agent.core.prompt_memory import mark_of
from edge_agent.core.prompt_settings import PromptSettings
from edge_agent.core.sample_budget import carried_epochs
from edge_agent.training.compression import remember
from edge_agent.training.round import Earlier
from edge_agent.training.sample_groups import grouped
from edge_agent.training.stored_samples import StoredSamples
from edge_agent.worker.contract import TrainingResult, Withheld
from fleet_protocol.codec import ClassStatistics
from fleet_protocol.kinds import Prompts, encode_payload
from fleet_protocol.prompt_plan import PromptPlan, magnitude
from fleet_protocol.task_description import TaskDescription

Features = NDArray[np.float64]
Labels = NDArray[np.int64]


def tell_prompts(
    stored: StoredSamples, plan: PromptPlan, task: TaskDescription, earlier: Earlier
) -> TrainingResult | Withheld | None:
    """What is told; why nothing is, where the task's devices train no rounds; None where this round trains."""
    if earlier.prompting is None:
        return None
    prompts = prompts_of(stored, plan, earlier.prompting, task)
    newest = max(part.newest for part in (stored.training, stored.validation))
    if prompts is not None:
        mark = mark_of(prompts.level, prompts.magnitudes, prompts.style)
        if mark != earlier.told or any(each.prompts for each in earlier.returned):
            memory = remember(task, earlier.residual, earlier.returned, earlier.life)
            return TrainingResult(
                packed=b"",
                residual=memory.state(),
                samples=len(stored.training) + len(stored.validation),
                steps=0,
                trained_through=newest,
                loss=0.0,
                life=memory.life,
                prompts=encode_payload(prompts),
                told=mark,
                epochs=carried_epochs(earlier.epochs, stored.different, stored.fresh),
                usual_norm=earlier.usual_norm,
            )
    if plan.rounds:
        return None
    words = "its prompts are told" if prompts else "there is nothing that its owner lets it tell"
    return Withheld("unchanged", f"{words}, and devices of {task.task} train no rounds", newest, 0.0)


def prompts_of(stored: StoredSamples, plan: PromptPlan, owner: PromptSettings, task: TaskDescription) -> Prompts | None:
    """All that may be told of a device's samples; None where that is nothing."""
    parts = [part for part in (stored.training, stored.validation) if len(part)]
    labels = np.concatenate([part.labels for part in parts]).astype(np.int64)
    counts = np.bincount(labels, minlength=task.label.classes)
    counts[counts < owner.minimum_samples] = 0
    level = owner.level(plan.level)
    if level is None or not counts.any():
        return None
    magnitudes = bytes(map(magnitude, counts.tolist()))
    if groups := plan.groups(level):
        features = np.concatenate([part.inputs.reshape(len(part), -1) for part in parts]).astype(np.float64)
        if np.abs(features).max() <= plan.largest_feature:
            numbers = _numbered(features, labels, np.flatnonzero(counts), groups, owner.minimum_samples)
            packed = _moments(features, numbers, task.label.classes * groups)
            return Prompts(level, magnitudes, owner.style, packed)
    return Prompts("class", magnitudes, owner.style)


def _numbered(features: Features, labels: Labels, classes: Labels, groups: int, least: int) -> Labels:
    """Of each row the number of its group, of which every class of the task has so many `groups`; -1 for rows that are
    of none of the `classes`.
    """
    numbers = np.full(len(labels), -1)
    for label in classes:
        own = np.flatnonzero(labels == label)
        numbers[own] = label * groups + grouped(features[own], groups, least)
    return numbers


def _moments(features: Features, numbers: Labels, groups: int) -> bytes:
    """Count, mean and variances of each group, packed."""
    spoken = numbers >= 0
    return ClassStatistics.of(features[spoken], numbers[spoken], groups, "gaussian").encode("float16", "gaussian")
