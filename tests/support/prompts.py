"""Prompts of devices of the tiny task, whose samples lie around a centre of each class."""

from pathlib import Path

import numpy as np

from bundle_runtime.bundle import Bundle
from bundle_runtime.samples import Samples
from edge_agent.training.stored_samples import StoredSamples
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.kinds import PROMPTS, Prompts, encode_payload
from fleet_protocol.prompt_plan import PromptPlan
from tests.support.bundles import TASK, write_bundle
from tests.support.device import SigningDevice

CENTRES = np.random.default_rng(5).uniform(-0.7, 0.7, (4, 8))


def bundle_with_prompts(folder: Path, plan: PromptPlan | None = None) -> Bundle:
    """The tiny task, of which every update makes a version."""
    aggregation = AggregationPlan(buffer_size=1, max_staleness=5, max_delta_norm=10.0, averaged_versions=3)
    return write_bundle(folder, aggregation=aggregation, prompts=plan or PromptPlan())


def stored(labels: list[int], seed: int = 0, newest: int = 40) -> StoredSamples:
    """Samples of these classes, as a device has them."""
    generator = np.random.default_rng(seed)
    numbers = np.array(labels, np.int64)
    inputs = CENTRES[numbers] + generator.normal(0, 0.05, (len(labels), 8))
    samples = Samples(inputs.astype(np.float32).clip(-1, 1), numbers, newest)
    return StoredSamples(samples, samples.take(slice(0, 0)), different=len(labels), fresh=len(labels))


def message(device: SigningDevice, prompts: Prompts, sequence: int = 1) -> bytes:
    """Prompts as a device signs them."""
    return device.sign(PROMPTS, encode_payload(prompts), sequence=sequence, task=TASK)
