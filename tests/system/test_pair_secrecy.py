"""A pair is trained by devices of two strengths: what they keep to themselves is in no payload on the broker."""

import zlib
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from broker_coordinator.consumers.activation_summary import SummaryFacts
from bundle_runtime.bundle import Bundle
from fleet_protocol.codec.activations import pack_activations
from fleet_protocol.kinds import ACTIVATION_SUMMARY, ActivationSummary, encode_payload
from fleet_protocol.sessions.frames import is_frame
from fleet_protocol.sessions.steps import StepRequest
from tests.support.broker import Broker
from tests.support.known_pair import CUTS, SIDE, copy_known_pair, crossings
from tests.support.overheard_session import decrypted, noted_keys, pass_forward
from tests.support.pair_secrets import PairDevice, secrets_of, shown_by
from tests.support.plaintext import found, unpacked
from tests.support.session_members import DeviceMember
from tests.support.split_fleet import SplitFleet
from tests.support.waiting import until
from tests.support.wiretap import Wiretap

ROWS = 8
"""Of a mini-batch, and all that a device has."""
SENT, ANSWERED = "device, discriminator.block2", "helper, discriminator.block3"
FRAMES_OF_STEP = (3 + 4) * 2 * 2
"""Of a turn of either part, of which the discriminator's does not go back through the generator: questions and answers,
each to the relay and from it.
"""


@pytest.fixture
def wiretap(broker: Broker) -> Iterator[Wiretap]:
    wiretap = Wiretap(broker)
    yield wiretap
    wiretap.close()


def devices() -> list[PairDevice]:
    """Of two strengths, each with pictures of one class."""
    made = []
    for seed, (name, cut) in enumerate(zip(("kitchen", "attic"), CUTS, strict=True)):
        pictures = np.random.default_rng(seed).random((ROWS, SIDE * SIDE), np.float32)
        made.append(PairDevice(name, cut, np.hstack([pictures, np.full((ROWS, 1), 7 - seed, np.float32)])))
    return made


def train(fleet: SplitFleet, each: PairDevice) -> None:
    agent = fleet.agent(each.name, samples=0, new_samples=ROWS, cut=each.cut)
    for *picture, digit in each.inputs.tolist():
        asked = {"task": fleet.task, "inputs": {"picture": picture, "digit": digit}}
        assert agent.ask(asked) == {"ok": True}


def request_of(each: PairDevice, bundle: Bundle) -> StepRequest:
    """With which the device begins on its pictures."""
    packed = pack_activations(crossings(bundle, each.cut, each.inputs)[SENT], "int8")
    return StepRequest(1, "forward", 0, 6, 7, ROWS, 0, False, "int8", packed)


def summaries_of(fleet: SplitFleet) -> dict[str, ActivationSummary]:
    """What the coordinator has been told of each device."""
    with fleet.coordinator.journal() as journal:
        told = journal.last_facts(fleet.task, ACTIVATION_SUMMARY.number, 10)
    facts = [msgspec.json.decode(text, type=SummaryFacts) for _, text in told]
    return {
        each.device: ActivationSummary(each.device, each.rows, np.array(each.mean, "<f4").tobytes()) for each in facts
    }


def test_no_label_picture_activation_or_mean_of_a_pair_is_in_any_payload(fleet, tmp_path, wiretap, monkeypatch):
    bundle = copy_known_pair(tmp_path / "pair")
    trained = devices()
    keys = noted_keys(monkeypatch)
    fleet.serve(tmp_path / "pair")
    fleet.helper("cellar-pi")
    pass_forward(fleet.member(DeviceMember, "probe"), bundle, trained[0].cut, request_of(trained[0], bundle))
    for each in trained:
        train(fleet, each)
    until(lambda: fleet.accepted() > len(trained), "the devices' updates and the helper's are accepted")
    until(lambda: fleet.summaries() == len(trained), "the helper has said something of each device")
    published = [payload for _, payload in wiretap.received]
    assert sum(map(is_frame, published)) > FRAMES_OF_STEP * len(trained)

    summaries = summaries_of(fleet)
    texts = {kind: text for each in trained for kind, text in shown_by(each, bundle).items()}
    texts |= {f"{name}: mean": [each.mean] for name, each in summaries.items()}
    secrets = secrets_of(texts)
    assert found(secrets, [*published, *unpacked(published)]) == set()

    for kind, text in texts.items():
        in_clear = b"".join(text)
        sought = {kind: secrets[kind]}
        assert found(sought, [b"anything" + in_clear]) == {kind}
        assert found(sought, unpacked([b"anything" + zlib.compress(in_clear)])) == {kind}
    for name, each in summaries.items():
        assert found(secrets, [encode_payload(each)]) == {f"{name}: mean"}
    asked = decrypted(published, keys)
    assert found(secrets, [*asked, *unpacked(asked)]) == {f"kitchen: {each}, int8" for each in (SENT, ANSWERED)}
