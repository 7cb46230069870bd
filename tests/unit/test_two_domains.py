"""The data of a demo that draws: two kinds of pictures, each device without some classes, and no class nowhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_protocol.errors import ConfigurationError
from workbench.data.drawn_letters import NAMES, drawn_letters
from workbench.data.two_domains import CLASSES, FEWEST_PICTURES, LACKING, digits_and_letters, smooth_digits


@settings(max_examples=4)
@given(devices=st.integers(4, 20), seed=st.integers(0, 2**32))
def test_every_device_lacks_classes_that_others_of_its_domain_have(devices: int, seed: int) -> None:
    data = digits_and_letters(devices, np.random.default_rng(seed))
    had = [set(part.labels.tolist()) for part in data.parts]
    assert all(len(part) >= FEWEST_PICTURES for part in data.parts)
    assert all(len(classes) <= CLASSES - LACKING for classes in had)
    for domain in range(2):
        own = [classes for classes, of in zip(had, data.of_device, strict=True) if of == domain]
        assert set().union(*own) == set(range(CLASSES))
    assert len(data.held_out) == sum(len(domain.held_out) for domain in data.domains)


def test_no_picture_is_on_two_devices_or_held_out_too() -> None:
    data = digits_and_letters(6, np.random.default_rng(1))
    pictures = [row.tobytes() for part in (*data.parts, data.held_out) for row in part.inputs]
    assert len(set(pictures)) == len(pictures)


@pytest.mark.parametrize("devices", [1, 3, 200])
def test_a_number_of_devices_that_can_not_work_is_told_with_those_that_can(devices: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"--agents {devices}: digits and letters need 4 devices at least"):
        digits_and_letters(devices, np.random.default_rng(0))


def test_digits_are_bright_on_dark_and_letters_dark_on_bright_within_what_the_task_takes() -> None:
    digits, letters = smooth_digits(), drawn_letters(40, np.random.default_rng(0))
    for pictures in (digits, letters):
        assert pictures.inputs.shape[1] == 28 * 28
        assert pictures.inputs.dtype == np.float32
        assert pictures.inputs.min() >= 0
        assert pictures.inputs.max() <= 1
    assert digits.inputs.mean() < 0.3
    assert letters.inputs.mean() > 0.7
    assert [NAMES[label] for label in letters.labels[:10]] == list(NAMES)
    assert len({row.tobytes() for row in letters.inputs}) == 40, "no letter is drawn twice alike"
