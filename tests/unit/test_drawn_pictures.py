"""What a demo shows of a task that draws: each cluster's own pictures, in a folder, on a terminal and in the report."""

import errno
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_coordinator.aggregation.narrowing import narrowing
from bundle_runtime.bundle import Bundle
from bundle_runtime.bundle_folder import load_bundle
from bundle_runtime.variety import variety
from fleet_protocol.codec import read_weights, write_weights
from fleet_protocol.codec.cluster_copies import with_copies
from tests.support.png_files import pixels_in
from workbench.data.two_domains import digits_and_letters
from workbench.demo.drawn.gallery import SHOWN, DrawnGroup, Gallery
from workbench.demo.drawn.groups import drawer_of, grouped
from workbench.demo.drawn.measurement import DrawingMeasurement
from workbench.demo.drawn.picture_folder import MOST_FORMED, PAGE, PictureFolder, drawn_pictures, spread
from workbench.demo.drawn.picture_strip import smaller, strip_lines
from workbench.recipe_folder import find_bundle

DEVICES = ("pi-01", "pi-02", "pi-03", "pi-04")
LARGEST = 3e38
"""Finite, and what is made of it is not."""
APART = {"pi-01": 1, "pi-03": 1, "pi-02": 2, "pi-04": 2}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(find_bundle("mnist_gan"))


def version(bundle: Bundle, **changed: float) -> bytes:
    """The untrained model, some of whose tensors have one value throughout."""
    task = bundle.description
    values = with_copies(read_weights(bundle.weights, task.parameters), task)
    start = 0
    for each in task.version.parameters:
        if (value := changed.get(each.name)) is not None:
            values[start : start + each.size] = value
        start += each.size
    return write_weights(values, task.version.parameters)


def drawn(bundle: Bundle, clusters: dict[str, int], *versions: bytes) -> list[DrawnGroup]:
    gallery = Gallery(bundle, DEVICES, lambda _: None)
    for number, each in enumerate(versions):
        gallery.add(number, each, clusters)
    return list(gallery.groups)


@given(st.dictionaries(st.sampled_from(DEVICES), st.integers(0, 3)))
def test_every_device_is_in_one_group_and_only_with_those_of_its_cluster(clusters: dict[str, int]) -> None:
    found = grouped(DEVICES, clusters)
    assert sorted(name for names in found.values() for name in names) == sorted(DEVICES)
    assert all(clusters.get(name, 0) == cluster for cluster, names in found.items() for name in names)


def test_each_cluster_draws_with_its_own_copy(bundle: Bundle) -> None:
    bright = version(bundle, **{"generator.block5.0.bias@2": 50.0})
    assert [group.title for group in drawn(bundle, {}, bright)] == ["in no cluster"]
    first, second = drawn(bundle, APART, bright)
    assert (first.devices, second.devices) == (("pi-01", "pi-03"), ("pi-02", "pi-04"))
    assert np.shape(first.pictures) == (10, SHOWN, 28, 28)
    assert np.min(second.pictures) == 255
    assert np.min(first.pictures) < 255


def test_a_cluster_that_draws_no_finite_number_spoils_no_other(bundle: Bundle, tmp_path: Path) -> None:
    broken = version(bundle, **{"generator.block4.1.weight@2": LARGEST})
    groups = drawn(bundle, APART, broken)
    assert [len(group.pictures) for group in groups] == [10, 0]
    said: list[str] = []
    PictureFolder(tmp_path / "pictures", said.append).show(groups)
    assert "nothing that is a finite number" in (tmp_path / "pictures" / PAGE).read_text()
    assert said == []
    assert [bool(drawn_pictures(group).grid) for group in groups] == [True, False]
    for in_colour in (False, True):
        assert all(line.cell_len <= 80 for line in strip_lines(groups, 80, 5, in_colour=in_colour))


def test_how_a_picture_formed_follows_its_device_through_versions(bundle: Bundle) -> None:
    dark, bright = (version(bundle, **{"generator.block5.0.bias": bias}) for bias in (-50.0, 50.0))
    gallery = Gallery(bundle, DEVICES, lambda _: None)
    gallery.add(0, dark, {})
    gallery.add(1, bright, {})
    gallery.add(2, bright, APART)
    first, second = gallery.groups
    assert list(first.formed) == list(second.formed) == [0, 1, 2]
    assert np.max(first.formed[0]) == 0
    assert np.min(first.formed[1]) == 255
    assert 0 < np.mean(first.formed[2]) < 255


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=300, unique=True).map(sorted), st.integers(2, 20))
def test_versions_that_are_shown_are_spread_from_the_first_to_the_last(numbers: list[int], most: int) -> None:
    shown = spread(numbers, most)
    assert len(shown) == min(most, len(numbers))
    assert all(before < after for before, after in pairwise(shown))
    assert {shown[0], shown[-1]} == {numbers[0], numbers[-1]}


def test_the_folder_has_a_file_of_each_cluster_and_version_and_a_page_of_the_newest(bundle, tmp_path) -> None:
    folder = PictureFolder(tmp_path / "pictures", pytest.fail)
    gallery = Gallery(bundle, DEVICES, folder.show)
    gallery.add(0, version(bundle), {})
    gallery.add(1, version(bundle), APART)
    names = {path.name for path in folder.page.parent.iterdir()}
    assert names == {PAGE, "version-00000-cluster-0.png", "version-00001-cluster-1.png", "version-00001-cluster-2.png"}
    page = folder.page.read_text()
    assert "version-00001-cluster-2.png" in page
    assert "version-00000" not in page
    assert "pi-02, pi-04" in page
    picture = pixels_in((folder.page.parent / "version-00001-cluster-1.png").read_bytes())
    assert picture.shape == (2 * (29 * SHOWN - 1), 2 * (29 * 10 - 1))


def test_a_full_disk_is_said_once_and_again_after_it_had_room(bundle, tmp_path, monkeypatch) -> None:
    said: list[str] = []
    folder = PictureFolder(tmp_path / "pictures", said.append)
    groups = drawn(bundle, {}, version(bundle))
    write = Path.write_bytes

    def full(_path: Path, _content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    folder.show(groups)
    folder.show(groups)
    assert len(said) == 1
    assert "No space left on device; make room on that disk" in said[0]
    monkeypatch.setattr(Path, "write_bytes", write)
    folder.show(groups)
    assert folder.page.exists()
    monkeypatch.setattr(Path, "write_bytes", full)
    folder.show(groups)
    assert len(said) == 2


def test_a_group_whose_pictures_have_become_alike_says_so_and_since_which_version(bundle: Bundle) -> None:
    lively, numb = version(bundle), version(bundle, **{"generator.block1.linear.weight": 0.0})
    (group,) = drawn(bundle, {}, numb, lively, numb)
    shown = drawn_pictures(group).variety
    assert (shown.last, shown.greatest_in, shown.is_narrow) == (0.0, 1, True)
    first, _ = drawn(bundle, APART, lively, lively)
    assert not drawn_pictures(first).variety.is_narrow


def test_variety_is_a_share_of_what_lies_between_black_and_white_and_none_of_what_is_no_number(bundle: Bundle) -> None:
    found = variety(drawer_of(bundle, version(bundle), 0), 4, seed=0)
    assert 0 < found < 1
    task = bundle.description
    inputs = task.inputs | {"picture": msgspec.structs.replace(task.inputs["picture"], minimum=-255.0, maximum=255.0)}
    wider = Bundle(msgspec.structs.replace(task, inputs=inputs), bundle.files)
    assert variety(drawer_of(wider, version(bundle), 0), 4, seed=0) == pytest.approx(found / 510)
    broken = version(bundle, **{"generator.block4.1.weight": LARGEST})
    assert variety(drawer_of(bundle, broken, 0), 4, seed=0) == 0


def test_a_report_has_at_most_so_many_versions_of_a_picture(bundle: Bundle) -> None:
    (group,) = drawn(bundle, {}, *[version(bundle)] * 3)
    many = replace(group, formed=dict.fromkeys(range(100), group.formed[0]))
    shown = drawn_pictures(many)
    assert (shown.formed_versions[0], shown.formed_versions[-1]) == (0, 99)
    assert len(shown.formed_versions) == MOST_FORMED
    assert msgspec.json.decode(msgspec.json.encode(shown), type=type(shown)) == shown


@settings(max_examples=20)
@given(st.integers(1, 200), st.integers(1, 14), st.integers(1, 5), st.booleans(), st.sampled_from([1, 3, 28, 50]))
def test_a_strip_fits_any_terminal(columns: int, rows: int, clusters: int, in_colour: bool, side: int) -> None:
    pictures = [[np.full((side, side), 20 * label, np.uint8)] for label in range(10)]
    groups = [DrawnGroup(number, DEVICES, 7, pictures, {}, narrowing(0, 7, {7: 0.2})) for number in range(clusters)]
    lines = list(strip_lines(groups, columns, rows, in_colour=in_colour))
    assert len(lines) == rows + 1
    assert all(line.cell_len <= columns for line in lines)


def test_a_smaller_picture_is_the_mean_of_a_larger_one() -> None:
    board = np.zeros((28, 28), np.uint8)
    board[:14] = 200
    half = smaller(board, 14)
    assert (half[:7] == 200).all()
    assert (half[7:] == 0).all()
    assert smaller(np.full((7, 7, 3), 90, np.uint8), 10).tolist() == [[90] * 10] * 10


def test_noise_is_worth_nothing_and_the_devices_own_pictures_nearly_everything(bundle: Bundle) -> None:
    names = [f"pi-{number:02}" for number in range(4)]
    measurement = DrawingMeasurement(bundle, digits_and_letters(4, np.random.default_rng(0)), names)
    broken = version(bundle, **{"generator.block4.1.weight": LARGEST})
    assert measurement.accuracy(None, {}) < 0.3
    assert measurement.accuracy(broken, {}) == 0
    assert measurement.accuracy(broken, dict.fromkeys(names, 1)) == measurement.accuracy(None, {})
    assert measurement.central_accuracy(0) > 0.95
