"""Devices that tell prompts once, a server that learns from them, and ordinary rounds: for `federated_generation`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.server_step import initial_state, next_state
from broker_coordinator.consumers.prompts import moments_of
from bundle_runtime.bundle import Bundle, with_description
from bundle_runtime.runner import BundleRunner
from bundle_runtime.samples import Samples
from edge_agent.core.prompt_settings import PromptSettings
from edge_agent.training.onnx_step import OnnxStepEngine, is_divisible
from edge_agent.training.prompts import prompts_of
from edge_agent.training.round import Earlier, train_round
from edge_agent.training.stored_samples import StoredSamples
from fleet_protocol import topics
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.codec import decode_update
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.downlink_plan import DownlinkPlan
from fleet_protocol.envelope import sign_envelope
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import PROMPTS, UPDATE, PayloadKind, Update, encode_payload
from fleet_protocol.prompt_plan import PromptPlan
from fleet_protocol.update_plan import UpdatePlan
from prompt_synthesis.data_folder import DataFolder
from prompt_synthesis.generators import make_generator
from prompt_synthesis.prompt import Told, combined
from prompt_synthesis.synthesis import planned, synthesise
from prompt_synthesis.training import SyntheticTrainer

FLEET, SHARD = "bench", "0"

AfterRound = Callable[[FloatVector, int], FloatVector]
"""What the server makes of a round's weights f32[P]; the number of the round."""


def with_prompts(bundle: Bundle, plan: PromptPlan, update: UpdatePlan, rate: float, devices: int) -> Bundle:
    """The same model, which devices train in rounds, and tell prompts for."""
    task = bundle.description
    changed = msgspec.structs.replace(
        task,
        prompts=plan,
        solved_head=None,
        versions_from=UPDATE.name,
        training=msgspec.structs.replace(task.training, learning_rate=rate),
        update=update,
        aggregation=AggregationPlan(buffer_size=devices),
        downlink=DownlinkPlan("exact"),
    )
    return with_description(bundle, changed)


@dataclass(frozen=True, slots=True)
class FleetPrompts:
    """What all devices told, and the bytes of their signed messages."""

    told: dict[str, Told]
    message_bytes: Sequence[int]


def tell(bundle: Bundle, devices: Sequence[Samples], owner: PromptSettings) -> FleetPrompts:
    """The prompts of every device, as the coordinator reads them; a device with nothing to tell sends nothing."""
    task, told, sizes = bundle.description, {}, []
    for number, samples in enumerate(devices):
        assert task.prompts is not None
        stored = StoredSamples(samples, samples.take(slice(0, 0)), different=len(samples), fresh=len(samples))
        if (prompts := prompts_of(stored, task.prompts, owner, task)) is not None:
            name = f"d{number:04}"
            told[name] = (prompts, moments_of(prompts, task))
            sizes.append(_signed_bytes(PROMPTS, encode_payload(prompts), name, task.task))
    return FleetPrompts(told, sizes)


def synthetic_samples(
    bundle: Bundle, told: FleetPrompts, folder: Path, *, generator: str, count: int, seed: int
) -> Samples:
    """What `broker-coordinator generate` trains on: `count` samples of each class."""
    plan = bundle.description.prompts
    assert plan is not None
    made, prompts = planned(bundle, combined(told.told, plan), generator, count, seed)
    maker = make_generator(generator, bundle.description)
    data = DataFolder(folder, made)
    synthesise(data, prompts, maker, bundle.description, on_part=lambda _: None)
    return SyntheticTrainer(bundle, 1).samples(data.parts())


@dataclass(frozen=True, slots=True)
class RoundResult:
    """After a round: accuracy on the test set, and bytes of all signed updates so far."""

    accuracy: float
    sent_bytes: int


def play_rounds(
    bundle: Bundle,
    devices: Sequence[Samples],
    test: Samples,
    start: FloatVector,
    count: int,
    *,
    after_round: AfterRound | None = None,
) -> list[RoundResult]:
    """Rounds in which every device trains from the newest version, by the shipped training, codec and aggregation."""
    task = bundle.description
    engine = OnnxStepEngine.of_task(task, bundle.files, 1, divisible=is_divisible(task.training))
    runner = BundleRunner(task, bundle.files)
    state = initial_state(start, task.aggregation)
    residuals = [b""] * len(devices)
    results: list[RoundResult] = []
    sent = 0
    for number in range(count):
        updates = []
        for place, samples in enumerate(devices):
            result = train_round(engine, state.weights, samples, task, Earlier(residuals[place], (), number, 1))
            residuals[place] = result.residual
            payload = encode_payload(Update(result.samples, result.steps, 0.123, result.packed))
            sent += _signed_bytes(UPDATE, payload, f"d{place:04}", task.task, number)
            delta = decode_update(result.packed, task.shapes)
            updates.append(BufferedUpdate(f"d{place}", delta, result.samples, state.version, 0))
        state = next_state(state, updates, task.aggregation)
        if after_round is not None:
            state = replace(state, weights=after_round(state.weights, number))
        results.append(RoundResult(runner.evaluate_features(state.weights, test).accuracy or 0.0, sent))
    return results


def _signed_bytes(kind: PayloadKind, payload: bytes, device: str, task: str, sequence: int = 1) -> int:
    topic = topics.up(FLEET, SHARD, device)
    return len(sign_envelope(SigningKey(bytes(32)), topic, kind, payload, sequence=sequence, task=task))
