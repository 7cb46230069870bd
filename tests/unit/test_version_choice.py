"""Version choice, pure: what is news, and what a device fetches to follow it."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.version_choice import (
    KnownVersion,
    ManifestNews,
    VersionUnavailableError,
    begins_generation,
    bundle_files,
    choose_weights,
    files_to_keep,
    invites_to_round,
    is_new_to,
    judge_manifest,
    known_from,
)
from fleet_protocol.bundle import DownlinkPlan, parse_description
from fleet_protocol.bundle_files import TRAIN_FILE
from fleet_protocol.cohort import EVERYONE
from fleet_protocol.kinds import Invitation, Manifest
from fleet_protocol.topics import PackedWeights

DIGITS = parse_description((Path(__file__).parents[2] / "models/digits/bundle/task.json").read_bytes())
BUNDLE, OTHER_BUNDLE = "0b" * 32, "0c" * 32
KNOWN, HELD = KnownVersion(7, BUNDLE, "77" * 32), KnownVersion(5, BUNDLE, "55" * 32)
manifests = st.builds(
    Manifest,
    st.integers(0, 5),
    st.sampled_from([BUNDLE, OTHER_BUNDLE]),
    st.sampled_from(["11" * 32, "22" * 32]),
    st.sampled_from([1, EVERYONE]),
    st.integers(0, 2),
    st.booleans(),
)


def choose(*here: str, held: KnownVersion | None = HELD, refused: tuple[str, ...] = ()) -> str | PackedWeights | None:
    return choose_weights(DIGITS, KNOWN, held, set(here).__contains__, refused)


@given(st.lists(manifests, max_size=12))
def test_no_order_or_repetition_of_manifests_moves_a_device_back(received):
    known, threshold = None, None
    for manifest in received:
        news, before = judge_manifest(known, threshold, manifest), known
        if news is ManifestNews.NEW_VERSION:
            known = known_from(manifest)
        if news is not ManifestNews.OLD:
            threshold = manifest.selection_threshold
        assert before is None or known == before or known.is_later_than(before)
        assert (news is ManifestNews.OLD) == (known != known_from(manifest))
        assert judge_manifest(known, threshold, manifest) in {ManifestNews.REPETITION, ManifestNews.OLD}
    assert (known is None) == (not received)
    assert known is None or order_of(known) == max(map(order_of, received))


def order_of(named: KnownVersion | Manifest) -> tuple[int, int]:
    return named.generation, named.version


@pytest.mark.parametrize(
    "manifest", [Manifest(0, OTHER_BUNDLE, "11" * 32, generation=1), Manifest(99, BUNDLE, "11" * 32)]
)
def test_later_generation_replaces_any_version_and_an_earlier_one_none(manifest):
    assert judge_manifest(KNOWN, None, manifest) is ManifestNews.NEW_VERSION
    of_generation_2 = KnownVersion(0, BUNDLE, "22" * 32, 2)
    assert judge_manifest(of_generation_2, None, manifest) is ManifestNews.OLD


def test_removed_task_is_news_and_so_is_its_return():
    farewell = Manifest(8, BUNDLE, BUNDLE, generation=1, removed=True)
    assert judge_manifest(KNOWN, None, farewell) is ManifestNews.NEW_VERSION
    assert judge_manifest(known_from(farewell), None, farewell) is ManifestNews.REPETITION
    assert judge_manifest(known_from(farewell), None, Manifest(90, BUNDLE, "33" * 32)) is ManifestNews.OLD
    assert judge_manifest(known_from(farewell), None, Manifest(8, BUNDLE, "33" * 32, generation=2)) is (
        ManifestNews.NEW_VERSION
    )


def test_round_that_asks_other_devices_now_is_news_unless_the_device_has_just_started():
    manifest = Manifest(7, BUNDLE, KNOWN.weights, 100)
    assert judge_manifest(KNOWN, None, manifest) is ManifestNews.REPETITION
    assert judge_manifest(KNOWN, 50, manifest) is ManifestNews.OTHERS_ASKED
    assert judge_manifest(KNOWN, 100, manifest) is ManifestNews.REPETITION


def test_weights_that_are_here_are_not_fetched():
    assert choose(KNOWN.weights) is None


def test_difference_is_from_the_held_version_where_its_weights_are_here_and_of_the_same_bundle():
    assert choose(HELD.weights) == PackedWeights("digits", 7, 5)
    of_another_generation = KnownVersion(5, BUNDLE, HELD.weights, 1)
    assert choose(HELD.weights, held=of_another_generation) == PackedWeights("digits", 7, None)
    assert choose() == PackedWeights("digits", 7, None)
    assert choose(held=None) == PackedWeights("digits", 7, None)
    assert choose(HELD.weights, held=KnownVersion(5, OTHER_BUNDLE, HELD.weights)) == PackedWeights("digits", 7, None)


def test_whole_weights_where_the_difference_was_refused_or_the_task_packs_none():
    assert choose(HELD.weights, refused=(KNOWN.weights,)) == KNOWN.weights
    whole = msgspec.structs.replace(DIGITS, downlink=DownlinkPlan("off"))
    assert choose_weights(whole, KNOWN, HELD, lambda _: False, ()) == KNOWN.weights


def test_bundle_that_lacks_a_file_of_the_engine_says_which():
    assert bundle_files(DIGITS, [TRAIN_FILE]) == {TRAIN_FILE: DIGITS.files[TRAIN_FILE]}
    with pytest.raises(VersionUnavailableError, match=r"lacks ort_training\.onnx"):
        bundle_files(DIGITS, [TRAIN_FILE, "ort_training.onnx"])


def test_what_is_kept_is_the_newest_version_the_base_of_the_next_difference_and_the_bundle():
    assert files_to_keep(KNOWN, HELD, DIGITS) == {BUNDLE, KNOWN.weights, HELD.weights, *DIGITS.files.values()}
    assert files_to_keep(None, None, None) == set()


def test_version_is_new_to_a_device_that_holds_an_earlier_one_another_bundles_or_none():
    held = KnownVersion(3, "0f" * 32, "aa" * 32)
    assert is_new_to(None, held)
    assert not is_new_to(held, held)
    assert not is_new_to(held, None)
    assert not is_new_to(held, replace(held, version=2))
    assert is_new_to(held, replace(held, version=4))
    assert is_new_to(held, replace(held, version=0, generation=1))
    assert is_new_to(held, replace(held, version=0, bundle="f0" * 32))


@pytest.mark.parametrize(
    ("held", "version", "generation", "invited"),
    [(None, 0, 0, True), ((3, 0), 3, 0, False), ((3, 0), 4, 0, True), ((9, 0), 3, 1, True), ((3, 1), 9, 0, False)],
)
def test_invitation_is_for_devices_that_have_not_trained_from_its_version(held, version, generation, invited):
    trained_from = held and KnownVersion(held[0], BUNDLE, "77" * 32, held[1])
    assert invites_to_round(trained_from, Invitation(version, generation, wants_round=True)) == invited
    assert not invites_to_round(trained_from, Invitation(version, generation))


@pytest.mark.parametrize(("generation", "begins"), [(0, False), (1, False), (2, True)])
def test_invitation_makes_a_device_look_for_a_generation_that_it_does_not_know(generation, begins):
    assert begins_generation(KnownVersion(3, BUNDLE, "77" * 32, 1), Invitation(99, generation)) == begins
    assert begins_generation(None, Invitation(99, generation))
