"""Split learning with every program as it ships: what a device keeps to itself is in no message of a run."""

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from bundle_runtime.bundle import Bundle
from bundle_runtime.samples import Samples
from fleet_protocol.sessions.frames import Frame, FrameType, is_frame, write_frame
from fleet_protocol.sessions.secrecy import Direction
from fleet_protocol.sessions.steps import StepAnswer, StepRequest
from tests.support.broker import Broker
from tests.support.helper import CUT, TASK
from tests.support.overheard_session import decrypted, noted_keys, pass_forward
from tests.support.plaintext import (
    WIRES,
    Activations,
    Secrets,
    found,
    label_texts,
    pieces,
    sample_texts,
    weights_of_first_version,
)
from tests.support.session_members import DeviceMember
from tests.support.split_session import (
    SESSION,
    DirectExchange,
    Received,
    batches_of,
    engine_of,
    middle_of,
    plan_of,
    rates_of,
)
from tests.support.waiting import until
from tests.support.wiretap import Wiretap

STEPS, SAMPLES = 4, 5
LABEL = 7


@pytest.fixture
def wiretap(broker: Broker) -> Iterator[Wiretap]:
    wiretap = Wiretap(broker)
    yield wiretap
    wiretap.close()


def pictures() -> Samples:
    """As many as a mini-batch takes, all of one class."""
    inputs = np.random.default_rng(5).random((SAMPLES, 1, 28, 28), np.float32)
    return Samples(inputs, np.full(SAMPLES, LABEL))


def secrets_of(bundle: Bundle, samples: Samples) -> Secrets:
    labels = label_texts(samples.labels, bundle.description.label.classes)
    texts = {kind: pieces(text) for kind, text in sample_texts(samples).items()}
    return texts | {kind: [text] for kind, text in labels.items()} | Activations(bundle, samples).secrets()


def plaintext(content: bytes) -> bytes:
    """A frame of which nobody has encrypted the body."""
    return write_frame(Frame(FrameType.CONTENT, SESSION, Direction.FROM_DEVICE, 0, 0, 1, 0, 1, content), bytes(32))


def passed(bundle: Bundle, samples: Samples, wire: str) -> tuple[StepRequest, StepAnswer]:
    """What the shipped device asks first in such a round, and the shipped helper's answer, in the clear."""
    answers: list[StepAnswer] = []

    def note(_request: StepRequest, answer: StepAnswer) -> list[Received]:
        answers.append(answer)
        return [answer]

    plan = plan_of(bundle.description, activations=wire)
    weights = weights_of_first_version(bundle)
    exchange = DirectExchange(middle_of(bundle, plan, weights), note)
    exchange.middle.open(SESSION, plan.cuts[0])
    engine = engine_of(bundle, plan, plan.cuts[0], exchange)
    engine.train(weights, samples, batches_of(samples, 1, SAMPLES), rates_of(bundle.description))
    return exchange.asked[0], answers[0]


def assert_search_finds_what_is_in_the_clear(secrets: Secrets, bundle: Bundle, samples: Samples) -> None:
    """Whatever a round has, one thing after the other."""
    activations = Activations(bundle, samples).of(range(SAMPLES))
    shown = sample_texts(samples) | label_texts(samples.labels, bundle.description.label.classes)
    shown["activations float32"] = activations.tobytes()
    shown["activations float16"] = activations.astype(np.float16).tobytes()
    for kind, text in shown.items():
        assert kind in found(secrets, [b"anything", plaintext(text)])
    for wire in WIRES:
        request, answer = passed(bundle, samples, wire)
        assert found(secrets, [plaintext(msgspec.msgpack.encode(request))]) == {"activations packed"}
        assert found(secrets, [plaintext(msgspec.msgpack.encode(answer))]) == {"activations answers packed"}
    assert len(secrets) == len(shown) + 2


def test_no_label_no_sample_and_no_activation_is_in_any_message(fleet, wiretap, monkeypatch) -> None:
    keys = noted_keys(monkeypatch)
    bundle = fleet.begin(steps=STEPS, batch_size=SAMPLES, buffer_size=1)
    helper = fleet.helper("cellar-pi")
    samples = pictures()
    request, _ = passed(bundle, samples, "int8")
    pass_forward(fleet.member(DeviceMember, "probe"), bundle, CUT, request)
    kitchen = fleet.agent("kitchen", samples=0, new_samples=SAMPLES)
    for inputs in samples.inputs:
        asked = {"task": TASK, "inputs": inputs.ravel().tolist(), "label": LABEL}
        assert kitchen.ask(asked) == {"ok": True}
    until(lambda: fleet.accepted() == 2, "the device's update and the helper's are accepted")
    assert helper.status()["steps"] == 2 * STEPS + 1, "and the pass in the clear"
    published = [payload for _, payload in wiretap.received]
    assert sum(map(is_frame, published)) >= 2 * 2 * 2 * STEPS, "each of them twice: to the relay and from it"
    secrets = secrets_of(bundle, samples)
    assert_search_finds_what_is_in_the_clear(secrets, bundle, samples)
    assert found(secrets, published) == set()
    in_clear = found(secrets, decrypted(published, keys))
    assert in_clear == {"activations packed", "activations answers packed"}, "of a session with the shipped helper"
