"""The arithmetic of masked updates: packing, rounding, masks, boxes, positions, and what error feedback keeps."""

import math

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from msgspec.structs import replace

from edge_agent.training.feedback.residual import ResidualFeedback
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.update_plan import UpdatePlan
from secure_aggregation.bit_packing import pack, packed_bytes, unpack
from secure_aggregation.boxes import opened_seeds, sealed_seeds
from secure_aggregation.coordinator import admitted, unmasked, weighted_mean
from secure_aggregation.device import DevicePolicy, accepted_cohort, masked_round
from secure_aggregation.field import Field
from secure_aggregation.manifest import check_manifest
from secure_aggregation.masks import key_stream, mask, update_place
from secure_aggregation.messages import SEED_BYTES
from secure_aggregation.positions import shared_positions, top_indices, top_positions
from secure_aggregation.seed_plan import SeedPlan
from secure_aggregation.signatures import signed
from tests.support.masked_cohort import MaskedCohort, key_of, manifest_of

PLACE = update_place(bytes(32), "pi-0000", 5)


def refused(reason, words, call, *arguments, **named):
    with pytest.raises(ProtocolError, match=words) as refusal:
        call(*arguments, **named)
    assert refusal.value.reason == reason


@given(st.lists(st.integers(0, 2**32 - 1), max_size=40), st.integers(8, 32))
def test_packed_numbers_are_read_again_and_take_their_bits(numbers, width):
    cut = np.array([number % (1 << width) for number in numbers], np.uint32)
    packed = pack(np.array(numbers, np.uint32), width)
    assert len(packed) == packed_bytes(len(numbers), width) == math.ceil(len(numbers) * width / 8)
    assert int.from_bytes(packed, "little") == sum(int(number) << width * at for at, number in enumerate(cut))
    np.testing.assert_array_equal(unpack(packed, len(numbers), width), cut)


@given(st.binary(max_size=60), st.integers(0, 20), st.integers(8, 32))
def test_any_bytes_are_refused_or_are_what_packing_writes(data, count, width):
    try:
        numbers = unpack(data, count, width)
    except ProtocolError as error:
        assert error.reason in {Reason.WRONG_SHAPE, Reason.MALFORMED}
    else:
        assert pack(numbers, width) == data


def test_set_bits_behind_the_last_number_are_refused():
    refused(Reason.MALFORMED, "the last 7 bits", unpack, b"\xff\xff", 1, 9)
    refused(Reason.WRONG_SHAPE, "3 bytes for 1 numbers of 9 bits, which take 2", unpack, bytes(3), 1, 9)


def test_masks_are_the_key_stream_of_a_second_implementation_of_chacha20():
    key = bytes(range(32))
    nonce = bytes(4) + b"LibsodiumDRG"
    stream = Cipher(ChaCha20(key, nonce), mode=None).encryptor().update(bytes(4000))
    assert key_stream(key, 1000).tobytes() == stream
    seeds = [bytes(SEED_BYTES), bytes(SEED_BYTES - 1) + b"\x01"]
    places = [PLACE, update_place(bytes(32), "pi-0000", 6)]
    masks = {mask(seed, place, number, 8).tobytes() for seed in seeds for place in places for number in (0, 1)}
    assert len(masks) == 8


@given(
    arrays.arrays(np.float32, st.integers(1, 30), elements=st.floats(-4, 4, width=32)),
    st.integers(2, 16),
    st.integers(0, 2**32 - 1),
)
def test_levels_are_next_to_the_clipped_value_and_within_range(entries, bits, draw):
    field = Field(1.0, bits, 800)
    levels = field.rounded(entries, np.full(entries.size, draw, np.uint32))
    assert np.abs(levels).max() <= field.most
    assert (np.abs(levels * field.step - np.clip(entries, -1, 1)) <= field.step * (1 + 1e-6)).all()
    assert (levels[entries == 0] == 0).all()


def test_levels_are_the_value_on_average():
    field = Field(1.0, 4, 8)
    draws = np.arange(0, 2**32, 2**20, dtype=np.uint64).astype(np.uint32)  # even over all draws
    for value in (-0.9, -0.33, 0.05, 0.71):
        mean = field.rounded(np.full(draws.size, value, np.float32), draws).mean() * field.step
        assert mean == pytest.approx(value, abs=field.step / 2000)


@given(st.integers(2, 16), st.integers(1, 4096), st.data())
def test_a_sum_modulo_the_modulus_is_the_sum(bits, total_weight, data):
    field = Field(1.0, bits, total_weight)
    if field.width > 32:
        refused(Reason.OUT_OF_BOUNDS, "lower bits, most_devices", field.check)
        return
    field.check()
    largest = field.most * total_weight
    total = np.array([-largest, largest, 0, data.draw(st.integers(-largest, largest))])
    noise = np.uint32(data.draw(st.integers(0, 2**32 - 1)) << field.width & 0xFFFFFFFF)
    np.testing.assert_array_equal(field.signed_sum(field.residues(total) + noise, total_weight), total)


@pytest.mark.parametrize("absurd", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_is_refused(absurd):
    vector = np.zeros(16, np.float32)
    vector[3] = absurd
    cohort = MaskedCohort(manifest_of(), 1)
    refused(Reason.NOT_FINITE, "entry 3 of the update", cohort.round_of, cohort.names[0], 6, vector)


def test_a_vector_of_another_length_is_refused():
    cohort = MaskedCohort(manifest_of(), 1)
    refused(
        Reason.WRONG_SHAPE, "16 entries of 15 parameters", cohort.round_of, cohort.names[0], 6, np.zeros(15, np.float32)
    )


@pytest.mark.parametrize(("helpers", "colluding"), [(3, 2), (4, 1), (5, 2)])
def test_a_box_opens_for_its_helper_and_its_update_alone(helpers, colluding):
    plan = SeedPlan(helpers, colluding)
    keys = [key_of(f"helper-{number}") for number in range(helpers)]
    seeds = [bytes((number,)) * SEED_BYTES for number in range(plan.seeds)]
    public = [bytes(key.verify_key) for key in keys]
    ephemeral, boxes = sealed_seeds(seeds, plan, public, PLACE, bytes(range(32)))
    for number, (key, box) in enumerate(zip(keys, boxes, strict=True)):
        opened = opened_seeds(box, ephemeral, plan=plan, number=number, key=key, place=PLACE)
        assert opened == tuple(seeds[held] for held in plan.held_by(number))
    good = {"box": boxes[0], "ephemeral": ephemeral, "plan": plan, "number": 0, "key": keys[0], "place": PLACE}
    for changed in (
        {"place": update_place(bytes(32), "pi-0000", 6)},
        {"place": update_place(bytes(32), "pi-0001", 5)},
        {"place": update_place(bytes(31) + b"\x01", "pi-0000", 5)},
        {"number": 1},
        {"key": keys[1]},
        {"box": boxes[1]},
        {"ephemeral": bytes(32)},
    ):
        refused(Reason.MALFORMED, "box . does not open", opened_seeds, **(good | changed))
    for box in (b"", bytes(15), boxes[0][:-1], boxes[0] + b"0"):
        refused(Reason.MALFORMED, f"box 0 has {len(box)} bytes", opened_seeds, **(good | {"box": box}))


def test_a_helpers_key_that_is_none_is_refused():
    refused(
        Reason.MALFORMED, "no valid Ed25519 public key", sealed_seeds,
        [bytes(16)] * 2, SeedPlan(2, 1), [bytes(32), bytes(32)], PLACE, bytes(range(32)),
    )  # fmt: skip


MOMENTUM = np.linspace(-1, 1, 40, dtype=np.float32)


@pytest.mark.parametrize(
    "fields",
    [
        {"clip": math.nan}, {"clip": 0.0}, {"clip": -1.0}, {"clip": math.inf}, {"clip": 5e-324},
        {"oldest_version": 7},
        {"entries": 16, "parameters": 17},
        {"positions": "random"},
        {"top_positions": bytes(2)},
        {"weights": (2, 1)}, {"weights": (1, 1)},
        {"fewest_devices": 65}, {"fewest_per_weight": 3},
        {"helpers": (bytes(32), bytes(32))},
        {"colluding": 4},
        {"bits": 16, "most_devices": 1024, "weights": (4,), "colluding": 4},
    ],
)  # fmt: skip
def test_a_manifest_that_contradicts_itself_is_refused(fields):
    with pytest.raises(ProtocolError) as refusal:
        check_manifest(manifest_of(**fields))
    assert refusal.value.reason == Reason.OUT_OF_BOUNDS


def test_the_largest_cohort_with_the_largest_weight_fits_sixteen_bits():
    check_manifest(manifest_of(bits=16, most_devices=1024))
    assert Field(1.0, 16, 4 * 1024).width == 28


def test_a_device_joins_only_cohorts_that_its_owner_would():
    manifest = manifest_of(fewest_devices=10, fewest_per_weight=5)
    trusted = frozenset(manifest.helpers)
    policy = DevicePolicy(trusted)
    coordinator = key_of("coordinator")

    def join(fields, owner=policy, base_version=3, key=coordinator):
        message = signed(key, replace(manifest, **fields))
        return accepted_cohort(message, coordinator.verify_key, owner, 16, base_version)

    assert join({}) == manifest
    refused(Reason.BAD_SIGNATURE, "that this device trusts", join, {}, key=key_of("stranger"))
    refused(Reason.OUT_OF_BOUNDS, "clip nan", join, {"clip": math.nan})
    refused(Reason.UNKNOWN_KEY, "does not trust", join, {}, DevicePolicy(trusted - {manifest.helpers[2]}))
    refused(Reason.OUT_OF_BOUNDS, "fewest_devices 9 is below 10", join, {"fewest_devices": 9})
    refused(Reason.OUT_OF_BOUNDS, "fewest_per_weight 4 is below 5", join, {"fewest_per_weight": 4})
    refused(Reason.OUT_OF_BOUNDS, "colluding 1 is below 2", join, {}, DevicePolicy(trusted, fewest_colluding=2))
    refused(Reason.TOO_STALE, "version 2 is not from 3 to 6", join, {}, base_version=2)
    larger = {"parameters": 2**24, "entries": 2**24}
    refused(Reason.WRONG_SHAPE, "16777216 parameters, this task has 16", join, larger)


def test_what_a_device_sends_is_checked_as_far_as_it_can_be_seen():
    cohort = MaskedCohort(manifest_of(), 2)
    update, key = cohort.rounds["pi-0000"].update, cohort.roster["pi-0000"]
    refused(
        Reason.BAD_SIGNATURE,
        "not signed by pi-0001",
        admitted,
        cohort.manifest,
        update,
        "pi-0001",
        cohort.roster["pi-0001"],
    )
    refused(Reason.WRONG_RECIPIENT, "pi-0001 sent seeds of pi-0000", admitted, cohort.manifest, update, "pi-0001", key)
    refused(Reason.WRONG_RECIPIENT, "this one is", admitted, manifest_of(number=2), update, "pi-0000", key)
    refused(Reason.WRONG_SHAPE, "numbers of", admitted, cohort.manifest, replace(update, values=b""), "pi-0000", key)


def test_random_positions_follow_from_the_seed_and_half_of_the_others_are_the_largest_of_momentum():
    sparse = manifest_of(parameters=40, entries=9, positions="random")
    np.testing.assert_array_equal(shared_positions(sparse), shared_positions(sparse))
    assert not np.array_equal(shared_positions(sparse), shared_positions(replace(sparse, positions_seed=8)))
    half = replace(sparse, positions="momentum", top_positions=top_positions(MOMENTUM, 9))
    check_manifest(half)
    positions = shared_positions(half)
    assert {0, 1, 38, 39} <= set(positions.tolist())
    assert positions.size == 9
    assert (np.diff(positions) > 0).all()
    none = replace(half, entries=1, top_positions=top_positions(MOMENTUM, 1))
    assert (none.top_positions, shared_positions(none).size) == (b"", 1)


def test_positions_of_a_momentum_that_is_mostly_nothing_are_drawn():
    momentum = np.zeros(40, np.float32)
    momentum[17] = -3.0
    manifest = manifest_of(parameters=40, entries=9, positions="momentum", top_positions=top_positions(momentum, 9))
    assert top_indices(manifest).tolist() == [17]
    assert shared_positions(manifest).size == 9


@given(st.integers(2, 3000), st.data())
def test_named_positions_are_read_as_they_were_written(parameters, data):
    entries = data.draw(st.integers(1, parameters - 1))
    momentum = np.random.default_rng(data.draw(st.integers(0, 99))).normal(0, 1, parameters).astype(np.float32)
    manifest = manifest_of(
        parameters=parameters, entries=entries, positions="momentum", top_positions=top_positions(momentum, entries)
    )
    check_manifest(manifest)
    top = np.sort(np.argsort(-np.abs(momentum))[: entries // 2])
    np.testing.assert_array_equal(top_indices(manifest), top)
    positions = shared_positions(manifest)
    assert set(top.tolist()) <= set(positions.tolist())
    assert (positions.size, np.unique(positions).size) == (entries, entries)


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        (b"\x28", Reason.INDEX_OUT_OF_RANGE, "position 40 among 40 parameters"),
        (b"\xff\xff\xff\x7f", Reason.INDEX_OUT_OF_RANGE, "among 40 parameters"),
        (bytes(5), Reason.WRONG_SHAPE, "5 top positions, at most half of its 9 entries"),
        (b"\x00\x80", Reason.MALFORMED, "end within a number"),
        (b"\x80\x00", Reason.MALFORMED, "shortest form"),
        (b"\xff\xff\xff\xff\x01", Reason.MALFORMED, "too long"),
    ],
)
def test_a_manifest_that_names_impossible_positions_is_refused(data, reason, words):
    manifest = manifest_of(parameters=40, entries=9, positions="momentum", top_positions=data)
    refused(reason, words, check_manifest, manifest)


@given(
    st.lists(st.booleans(), min_size=1, max_size=6),
    st.sampled_from(["random", "momentum", "dense"]),
    st.integers(0, 99),
)
@settings(max_examples=25)
def test_error_feedback_keeps_what_positions_clipping_and_rounding_leave_out_and_takes_void_cohorts_back(
    voids, rule, seed
):
    """In numbers that float32 adds without rounding: steps of 1/64, deltas in 1/4096."""
    generator = np.random.default_rng(seed)
    fields = {"positions": rule, "entries": 40 if rule == "dense" else 9, "clip": 127 / 64}
    top = top_positions(MOMENTUM, 9) if rule == "momentum" else b""
    feedback = ResidualFeedback(UpdatePlan(0.1), b"", 40, 1)
    learned, counted = np.zeros(40), np.zeros(40)
    for number, void in enumerate(voids):
        manifest = manifest_of(parameters=40, number=number, positions_seed=number, top_positions=top, **fields)
        delta = (generator.integers(-(2**13), 2**13, 40) / 4096).astype(np.float32)
        learned += delta
        sent = masked_round(
            manifest, shared_positions(manifest), feedback.offer(delta),
            key=key_of("pi-0000"), device="pi-0000", sequence=number, base_version=3, random_bytes=generator.bytes,
        ).sent  # fmt: skip
        feedback.take(sent)
        if void:
            feedback.give_back(sent)
        else:
            sent.add_to(counted)
        np.testing.assert_array_equal(counted + np.frombuffer(feedback.state(), np.float32), learned)


def test_what_error_feedback_takes_is_what_the_sum_counts():
    cohort = MaskedCohort(manifest_of(parameters=40, entries=9, positions="random"), 2)
    cohort_set = cohort.set_of(dict.fromkeys(cohort.names, 3))
    total = unmasked(cohort.manifest, cohort_set, cohort.admitted, cohort.answers(cohort_set, (1, 3)))
    mean = np.mean([cohort.rounds[name].sent.values for name in cohort.names], axis=0)
    np.testing.assert_allclose(weighted_mean(cohort.manifest, total), mean, rtol=1e-6)
