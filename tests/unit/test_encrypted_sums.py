"""Sums of encrypted updates: exact at the extremes, one ciphertext of each set, and nothing of any other."""

import hashlib

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_host.seal import decrypted, encryptions_of_zero, new_key
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.privacy.encryption_plan import (
    DEGREE,
    LARGEST_NOISE,
    MODULUS,
    MODULUS_BITS,
    PARTS,
    chunks_of,
    ciphertext_bytes,
    decrypts_exactly,
)
from secure_aggregation.bit_packing import unpack
from secure_aggregation.boxes import opened_seeds
from secure_aggregation.ciphertexts import LARGEST_FACTOR, add_weighted, encrypted, pack_ciphertext, unpack_ciphertext
from secure_aggregation.coordinator import summed_ciphertext, unmasked
from secure_aggregation.encryption_key import read_encryption_key, write_encryption_key
from secure_aggregation.helper.claims import ClaimsInMemory
from secure_aggregation.helper.key_holder import KeyHolder
from secure_aggregation.manifest import check_manifest, field_of, seed_plan_of
from secure_aggregation.masks import mask, update_place
from secure_aggregation.messages import HelperAnswer, SealedSeeds, message_hash
from secure_aggregation.signatures import read_unverified
from tests.support.masked_cohort import MaskedCohort, key_of, manifest_of

KEY_FILE = hashlib.sha256(b"the key's file").digest()


@pytest.fixture(scope="module")
def keys():
    return new_key()


@pytest.fixture(scope="module")
def holder(keys):
    return holder_of(keys)


def holder_of(keys, file=KEY_FILE):
    return KeyHolder(file, lambda ciphertext, width: decrypted(keys[0], ciphertext, width))


def encrypted_manifest(helpers=1, key_holder=0, **fields):
    return manifest_of(helpers, helpers - 1, encryption_key=KEY_FILE, key_holder=key_holder, **fields)


def secret_coefficients(secret):
    """s itself, by SEAL alone: the ciphertext (0, MODULUS / 4) decrypts to s modulo 4."""
    ciphertext = np.zeros((1, PARTS, DEGREE), np.uint64)
    ciphertext[0, 1, 0] = MODULUS // 4
    found = np.frombuffer(decrypted(secret, ciphertext.tobytes(), 2), "<u8").astype(np.int64)
    assert set(found.tolist()) <= {0, 1, 3}
    return np.where(found == 3, -1, found)


def noise_and_message(secret, ciphertext):
    """c0 + c1 s modulo MODULUS, as signed numbers: plain long multiplication of Python's, no SEAL."""
    found = []
    c1 = [int(value) for value in ciphertext[1]]
    s = secret_coefficients(secret)
    product = [0] * DEGREE
    for place, sign in enumerate(s.tolist()):
        if sign:
            turned = [-value for value in c1[DEGREE - place :]] + c1[: DEGREE - place]
            product = [total + sign * value for total, value in zip(product, turned, strict=True)]
    for c0, value in zip(ciphertext[0].tolist(), product, strict=True):
        residue = (c0 + value) % MODULUS
        found.append(residue - MODULUS if residue > MODULUS // 2 else residue)
    return found


def test_noise_of_an_encryption_is_within_the_bound_and_no_two_are_alike(keys):
    secret, public = keys
    zeros = np.frombuffer(encryptions_of_zero(public, 3), "<u8").reshape(3, PARTS, DEGREE)
    noises = [noise_and_message(secret, zero) for zero in zeros]
    for noise in noises:
        assert 0 < max(map(abs, noise)) <= LARGEST_NOISE
        assert 100 < np.std(noise) < 300, "sqrt(2 DEGREE 2 / 3) times the deviation of e, which is sqrt(10.5)"
    assert len({tuple(noise) for noise in noises}) == len({zero.tobytes() for zero in zeros}) == 3


@pytest.mark.parametrize("width", [8, 16, 20, 27])
@pytest.mark.parametrize("sign", [1, -1])
def test_largest_sum_that_is_allowed_decrypts_exactly_with_the_largest_noise(keys, width, sign):
    """Each ciphertext has LARGEST_NOISE in every coefficient, and all are summed with as much weight as is allowed."""
    secret, public = keys
    zero = np.frombuffer(encryptions_of_zero(public, 1), "<u8").astype(np.uint64).reshape(1, PARTS, DEGREE)
    noise = noise_and_message(secret, zero[0])
    most = (MODULUS - 1) // (LARGEST_NOISE << width + 1)
    assert decrypts_exactly(width, most)
    assert not decrypts_exactly(width, most + 1)
    worst = zero.copy()
    for at, value in enumerate(noise):
        worst[0, 0, at] = (int(zero[0, 0, at]) + sign * (LARGEST_NOISE - 1) - value) % MODULUS
    message = np.arange(DEGREE, dtype=np.uint32) * np.uint32(2654435761) % np.uint32(1 << width)
    one = unpack_ciphertext(encrypted(worst.tobytes(), message, width), DEGREE)
    total, left = None, most
    while left:
        weight = min(left, LARGEST_FACTOR)
        total, left = add_weighted(total, one, weight), left - weight
    found = np.frombuffer(decrypted(secret, total.tobytes(), width), "<u8")
    np.testing.assert_array_equal(found, message.astype(np.uint64) * np.uint64(most) % np.uint64(1 << width))


@pytest.mark.parametrize("width", [8, 15, 32])
def test_what_seal_decrypts_is_what_was_encrypted_with_one_entry_or_several_chunks(keys, width):
    secret, public = keys
    generator = np.random.default_rng(width)
    for entries in (1, DEGREE, DEGREE + 1, 3 * DEGREE - 5):
        message = generator.integers(0, 1 << width, entries, np.uint64).astype(np.uint32)
        data = encrypted(encryptions_of_zero(public, chunks_of(entries)), message, width)
        assert len(data) == ciphertext_bytes(entries)
        found = np.frombuffer(decrypted(secret, unpack_ciphertext(data, entries).tobytes(), width), "<u8")
        np.testing.assert_array_equal(found[:entries], message)
        assert not found[entries:].any()


@given(st.integers(0, 2**32), st.integers(1, 2 * DEGREE))
@settings(max_examples=20)
def test_ciphertexts_come_back_as_they_were_packed(seed, entries):
    generator = np.random.default_rng(seed)
    residues = generator.integers(0, MODULUS, (chunks_of(entries), PARTS, DEGREE), np.uint64)
    residues[0, 0, :2] = 0, MODULUS - 1
    data = pack_ciphertext(residues)
    assert len(data) == ciphertext_bytes(entries) == residues.size * MODULUS_BITS // 8
    np.testing.assert_array_equal(unpack_ciphertext(data, entries), residues)


def test_what_is_no_ciphertext_of_so_many_entries_is_refused():
    good = pack_ciphertext(np.zeros((1, PARTS, DEGREE), np.uint64))
    for data in (b"", good[:-1], good + b"\0", good * 2):
        with pytest.raises(ProtocolError, match="encrypted entries, which take") as refused:
            unpack_ciphertext(data, 16)
        assert refused.value.reason is Reason.WRONG_SHAPE
    residues = np.zeros((1, PARTS, DEGREE), np.uint64)
    residues[0, 1, 7] = MODULUS
    with pytest.raises(ProtocolError, match=f"residue {DEGREE + 7} of the ciphertext is {MODULUS}"):
        unpack_ciphertext(pack_ciphertext(residues), 16)


class Encrypted(MaskedCohort):
    """Its devices' messages by name, and what the coordinator makes of a set of them."""

    def values(self, name):
        return self.rounds[name].update.values

    def committed(self, weights):
        """The set that names its ciphertext, and the ciphertext."""
        members = self.set_of(weights)
        ciphertext = summed_ciphertext(self.manifest, members, self.values)
        return msgspec.structs.replace(members, ciphertext=hashlib.sha256(ciphertext).digest()), ciphertext


@pytest.fixture(scope="module")
def cohort(keys):
    return Encrypted(encrypted_manifest(), 4, public=keys[1])


def ones(names):
    return dict.fromkeys(names, 1)


@pytest.mark.parametrize(("helpers", "key_holder"), [(1, 0), (2, 0), (2, 1), (3, 1), (5, 4)])
@pytest.mark.parametrize("fields", [{}, {"entries": 2 * DEGREE + 9, "bits": 12}])
def test_sum_is_the_plain_one_with_the_key_holder_among_all_helpers(keys, holder, helpers, key_holder, fields):
    manifest = encrypted_manifest(helpers, key_holder, **({"most_devices": 4} | fields))
    check_manifest(manifest)
    cohort = Encrypted(manifest, 4, public=keys[1])
    weights = dict(zip(cohort.names, (4, 4, 3, 3), strict=True))
    members, ciphertext = cohort.committed(weights)
    answers = []
    for number in range(helpers):
        is_holder = number == key_holder
        helper = cohort.helper(number, holder=holder if is_holder else None)
        answers.append(helper.answer(cohort.request(members), (), ciphertext if is_holder else b""))
    total = unmasked(cohort.manifest, members, cohort.admitted, answers)
    np.testing.assert_array_equal(total.levels, cohort.plain_sum(weights))


def refused(reason, words, call, *arguments):
    with pytest.raises(ProtocolError, match=words) as refusal:
        call(*arguments)
    assert refusal.value.reason == reason


def test_key_holder_decrypts_one_ciphertext_of_a_set_and_gives_the_same_bytes_again(cohort, holder):
    claims = ClaimsInMemory()
    helper = cohort.helper(0, claims, holder=holder)
    members, ciphertext = cohort.committed(ones(cohort.names))
    first = helper.answer(cohort.request(members), (), ciphertext)
    assert cohort.helper(0, claims, holder=holder).answer(cohort.request(members), (), ciphertext) == first
    single = cohort.values(cohort.names[0])
    other = msgspec.structs.replace(members, ciphertext=hashlib.sha256(single).digest())
    refused(Reason.SEQUENCE_REUSED, "a helper speaks for one set", helper.answer, cohort.request(other), (), single)
    refused(Reason.WRONG_HASH, "came with the set", helper.answer, cohort.request(members), (), single)
    refused(Reason.WRONG_HASH, "came with the set", helper.answer, cohort.request(members), (), b"")
    unnamed = cohort.set_of(ones(cohort.names))
    refused(Reason.WRONG_HASH, "it names none", helper.answer, cohort.request(unnamed), (), ciphertext)


def test_small_set_and_overlapping_set_are_refused_with_ciphertexts_too(cohort, holder):
    helper = cohort.helper(0, holder=holder)
    lone = cohort.committed(ones(cohort.names[:1]))
    refused(Reason.OUT_OF_BOUNDS, "a set of 1 devices", helper.answer, cohort.request(lone[0]), (), lone[1])
    members, ciphertext = cohort.committed(ones(cohort.names))
    helper.answer(cohort.request(members), (), ciphertext)
    overlapping = cohort.committed(ones(cohort.names[1:]))
    refused(Reason.SEQUENCE_REUSED, "is of the set", helper.answer, cohort.request(overlapping[0]), (), overlapping[1])


def test_key_holder_without_the_key_that_updates_are_encrypted_under_says_so_before_a_set_is_committed(cohort, keys):
    request = cohort.request(cohort.set_of(ones(cohort.names)))
    refused(Reason.UNKNOWN_KEY, "it has no encryption key", cohort.helper(0).unusable, request)
    other = holder_of(keys, bytes(32))
    refused(Reason.UNKNOWN_KEY, "its key is 0000", cohort.helper(0, holder=other).unusable, request)
    assert cohort.helper(0, holder=holder_of(keys)).unusable(request) == ()


@pytest.mark.parametrize("forged", ["one device's", "nothing at all", "the secret key's"])
def test_of_a_ciphertext_that_is_not_the_sets_sum_nothing_is_left_but_masks(cohort, holder, keys, forged):
    """A coordinator commits a set with a ciphertext of its choice. What it is told has the masks of all devices."""
    width, entries = field_of(cohort.manifest).width, cohort.manifest.entries
    chosen = np.zeros((1, PARTS, DEGREE), np.uint64)
    if forged == "one device's":
        chosen = unpack_ciphertext(cohort.values(cohort.names[0]), entries)
    elif forged == "the secret key's":
        chosen[0, 1, 0] = MODULUS >> width  # decrypts to s
    ciphertext = pack_ciphertext(chosen)
    members = msgspec.structs.replace(cohort.set_of(ones(cohort.names)), ciphertext=hashlib.sha256(ciphertext).digest())
    told = read_unverified(
        cohort.helper(0, holder=holder).answer(cohort.request(members), (), ciphertext), HelperAnswer
    )
    mask_sum = sum_of_masks_of(cohort)
    hidden = np.frombuffer(decrypted(keys[0], chosen.tobytes(), width), "<u8")[:entries].astype(np.uint32)
    expected = (mask_sum - hidden) & np.uint32((1 << width) - 1)
    np.testing.assert_array_equal(unpack(told.sums[0], entries, width), expected)


def test_coordinator_that_alters_the_sum_learns_the_lattice_key_and_is_left_with_masked_updates(cohort, holder, keys):
    """The limit that docs/secure-aggregation.md names: encryption adds nothing against it, and masks hold."""
    width, entries = field_of(cohort.manifest).width, cohort.manifest.entries
    weights = ones(cohort.names)
    altered = unpack_ciphertext(cohort.committed(weights)[1], entries)
    altered[0, 1, 0] = (int(altered[0, 1, 0]) + (MODULUS >> 2)) % MODULUS
    ciphertext = pack_ciphertext(altered)
    members = msgspec.structs.replace(cohort.set_of(weights), ciphertext=hashlib.sha256(ciphertext).digest())
    answer = cohort.helper(0, holder=holder).answer(cohort.request(members), (), ciphertext)
    told = unpack(read_unverified(answer, HelperAnswer).sums[0], entries, width)
    quarter = 1 << width - 2
    learnt = (-told.astype(np.int64) - cohort.plain_sum(weights)) % (1 << width)
    secret = secret_coefficients(keys[0])[:entries]
    np.testing.assert_allclose(learnt, secret * quarter % (1 << width), atol=1)
    for name in cohort.names:
        single = unpack_ciphertext(cohort.values(name), entries)
        seen = np.frombuffer(decrypted(keys[0], single.tobytes(), width), "<u8")[:entries].astype(np.int64)
        masks = masks_of(cohort, name).astype(np.int64)
        np.testing.assert_array_equal((seen - masks) % (1 << width), cohort.rounds[name].levels % (1 << width))


def sum_of_masks_of(cohort):
    """All masks of all devices, uint32[entries], with the seeds in the key holder's boxes."""
    return sum(masks_of(cohort, name) for name in cohort.names)


def masks_of(cohort, name):
    seeds = read_unverified(cohort.rounds[name].update.seeds, SealedSeeds)
    place = update_place(message_hash(cohort.manifest), name, seeds.sequence)
    (seed,) = opened_seeds(
        seeds.boxes[0],
        seeds.ephemeral,
        plan=seed_plan_of(cohort.manifest),
        number=0,
        key=key_of("helper-0"),
        place=place,
    )
    return mask(seed, place, 0, cohort.manifest.entries)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"encryption_key": b"short"}, "a SHA-256 has 32"),
        ({"key_holder": 1}, "all helpers must answer"),
        ({"encryption_key": b""}, "colluding 0 of 1 mask helpers without a key holder"),
        ({"most_devices": 1024, "bits": 16, "weights": (1, 2, 3, 4)}, "don't decrypt exactly"),
    ],
)
def test_manifest_that_no_encrypted_cohort_can_keep_to_is_refused(fields, words):
    check_manifest(encrypted_manifest())
    refused(Reason.OUT_OF_BOUNDS, words, check_manifest, msgspec.structs.replace(encrypted_manifest(), **fields))


def test_replicated_masks_have_no_key_holder():
    manifest = msgspec.structs.replace(manifest_of(4, 1), encryption_key=KEY_FILE)
    refused(Reason.OUT_OF_BOUNDS, "all helpers must answer", check_manifest, manifest)


def test_key_file_is_the_key_holders_and_nobody_elses(keys):
    file = write_encryption_key(key_of("gateway"), keys[1])
    assert file == write_encryption_key(key_of("gateway"), keys[1])
    assert read_encryption_key(file, key_of("gateway").verify_key) == keys[1]
    refused(Reason.BAD_SIGNATURE, "not signed by", read_encryption_key, file, key_of("stranger").verify_key)
    for damaged in (b"", file[:-1], b"\xff" * 100):
        refused(Reason.MALFORMED, "Signed", read_encryption_key, damaged, key_of("gateway").verify_key)


def test_seal_decrypts_ciphertexts_that_no_encryption_makes_without_harm(keys):
    for residue in (0, 1, MODULUS - 1):
        odd = np.full((2, PARTS, DEGREE), residue, np.uint64)
        assert len(decrypted(keys[0], odd.tobytes(), 12)) == 2 * DEGREE * 8
