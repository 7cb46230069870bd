"""As how many samples an update counts by the noise that it says, and which sayings are refused."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.admission.consumer import Offered
from broker_coordinator.aggregation.bounds import SAMPLES_FACTOR
from broker_coordinator.aggregation.noise_weight import UNITS, counted_samples
from broker_coordinator.consumers.peers import Peers
from broker_coordinator.consumers.update import UPDATE_CONSUMER, UpdateFacts, admit
from fleet_protocol.codec import encode_update
from fleet_protocol.envelope import Header
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import UPDATE, Update, decode_payload, encode_payload
from fleet_protocol.limits import MAX_SAMPLES_PER_UPDATE
from fleet_protocol.privacy.privacy_plan import PrivacyPlan
from fleet_protocol.privacy.sample_privacy import MOST_NOISE
from fleet_protocol.task_description import TaskDescription
from fleet_protocol.update_plan import UpdatePlan
from tests.unit.test_private_tasks import PROMISE, TASK

CHOICE = msgspec.structs.replace(PROMISE, owners_choose=True)
CHOSEN = msgspec.structs.replace(TASK, privacy=PrivacyPlan(CHOICE))
PACKED = encode_update(
    np.full(TASK.trained_count, 1e-3, np.float32),
    TASK.trained_shapes,
    UpdatePlan(keep_fraction=1.0),
    np.random.default_rng(1),
).packed

SIGMA = 1.5
SMALL_PLAN = msgspec.structs.replace(CHOICE, sampling_rate=0.25, noise_multiplier=SIGMA)
SMALL = msgspec.structs.replace(
    CHOSEN,
    training=msgspec.structs.replace(CHOSEN.training, steps=4, batch_size=15),
    privacy=PrivacyPlan(SMALL_PLAN),
    parameters=[msgspec.structs.replace(CHOSEN.parameters[0], shape=[40])],
)

samples = st.integers(1, MAX_SAMPLES_PER_UPDATE)
noises = st.one_of(st.just(0.0), st.floats(PROMISE.noise_multiplier, MOST_NOISE))


def offered(update: Update, device: str = "attic", task: TaskDescription = CHOSEN, peers: Peers | None = None):
    return Offered(device, Header(UPDATE, 1, task.task, 3, bytes(16)), update, task, 0, memory=peers)


@given(samples, samples, noises, noises)
def test_more_noise_never_counts_more_and_more_samples_never_less(few, many, less, more):
    few, many = sorted((few, many))
    less, more = sorted((less, more))
    assert 1 <= counted_samples(few, more, CHOSEN) <= counted_samples(few, less, CHOSEN) <= UNITS * few
    assert counted_samples(few, less, CHOSEN) <= counted_samples(many, less, CHOSEN)
    assert counted_samples(few, None, CHOSEN) == counted_samples(few, PROMISE.noise_multiplier, CHOSEN)
    assert counted_samples(few, None, TASK) == few


@pytest.mark.parametrize(("number", "noise"), [(60, SIGMA), (240, SIGMA), (240, 0.0), (60, 3 * SIGMA)])
def test_weights_are_one_over_the_variance_of_rounds_on_gradients_as_long_as_the_clip(number, noise):
    found = counted_samples(60, 0.0, SMALL) / counted_samples(number, noise, SMALL)
    assert found == pytest.approx(variance_of_rounds(number, noise) / variance_of_rounds(60, 0.0), rel=0.1)


def variance_of_rounds(number: int, noise: float, rounds: int = 300) -> float:
    """Of what a round adds up, on so many samples with gradients of norm 1 around 0."""
    generator, rate = np.random.default_rng(5), SMALL_PLAN.sampling_rate
    squares = []
    for _ in range(rounds):
        gradients = generator.standard_normal((number, SMALL.trained_count))
        gradients /= np.linalg.norm(gradients, axis=1, keepdims=True)
        total = np.zeros(SMALL.trained_count)
        for _ in range(SMALL.training.steps):
            total += gradients[generator.random(number) < rate].sum(axis=0)
            total += noise * generator.standard_normal(SMALL.trained_count)
        squares.append(np.sum((total / (rate * number)) ** 2))
    return float(np.mean(squares))


@pytest.mark.parametrize(
    ("task", "noise", "words"),
    [
        (TASK, 0.0, "owners do not choose it in digits; leave it out, or write owners_choose = true"),
        (CHOSEN, 1e-300, f"it is none \\(0\\), or {CHOICE.told_noise:g} to 1000"),
        (CHOSEN, CHOICE.told_noise * 0.999, "it is none"),
        (CHOSEN, math.nan, "it is none"),
    ],
)
def test_saying_that_no_owner_can_have_chosen_is_refused(task, noise, words):
    with pytest.raises(ProtocolError, match=words) as refused:
        admit(offered(Update(20, 5, 0.0, PACKED, noise=noise), task=task))
    assert refused.value.reason is Reason.OUT_OF_BOUNDS


@pytest.mark.parametrize("noise", [-1.0, 1000.5, 1e308, math.inf])
def test_absurd_noise_is_not_even_read(noise):
    with pytest.raises(ProtocolError, match=r"Update: Expected `float` .*\$\[7\]") as refused:
        decode_payload(encode_payload(Update(20, 5, 0.0, PACKED, noise=noise)), Update)
    assert refused.value.reason is Reason.MALFORMED


def test_update_without_a_saying_has_the_bytes_that_it_had():
    update = Update(20, 5, 0.0, PACKED)
    assert encode_payload(update)[0] == 0x84, "an array of four"
    assert encode_payload(msgspec.structs.replace(update, noise=1.5))[0] == 0x88
    assert decode_payload(encode_payload(update), Update).noise is None
    facts = admit(offered(update, task=TASK)).facts
    assert b"noise" not in msgspec.json.encode(facts)


def test_device_that_says_it_has_no_noise_weighs_no_more_than_half_as_much_again_as_others():
    peers = Peers()
    for number in range(9):
        update = Update(20, 5, 0.0, PACKED)
        facts = admit(offered(update, f"pi{number}", peers=peers)).facts
        UPDATE_CONSUMER.remember(peers, f"pi{number}", facts, CHOSEN)
    honest = admit(offered(Update(20, 5, 0.0, PACKED), peers=peers)).facts
    liar = admit(offered(Update(MAX_SAMPLES_PER_UPDATE, 5, 0.0, PACKED, noise=0.0), peers=peers)).facts
    assert liar.samples <= SAMPLES_FACTOR * honest.samples
    assert (liar.noise, liar.declared) == (0.0, MAX_SAMPLES_PER_UPDATE)


def test_quiet_majority_counts_a_noised_device_for_what_it_is_worth():
    peers = Peers()
    for number in range(9):
        facts = admit(offered(Update(20, 5, 0.0, PACKED, noise=0.0), f"pi{number}", peers=peers)).facts
        UPDATE_CONSUMER.remember(peers, f"pi{number}", facts, CHOSEN)
    noised = admit(offered(Update(20, 5, 0.0, PACKED), peers=peers)).facts
    quiet = admit(offered(Update(20, 5, 0.0, PACKED, noise=0.0), peers=peers)).facts
    assert (quiet.samples, noised.samples) == (counted_samples(20, 0.0, CHOSEN), counted_samples(20, None, CHOSEN))
    assert quiet.samples > 10 * noised.samples


def test_facts_of_an_earlier_release_say_no_noise():
    assert msgspec.json.decode(b'{"samples": 3, "loss": null, "norm": 1.0}', type=UpdateFacts).noise is None
