"""When devices are harmed: the equation, on arrays; what few that lie can't do; for how long is tempered."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.aggregation.harm import (
    FEWEST_FIRST,
    FEWEST_OF_FIRST,
    FEWEST_SHARES,
    LEAST_GAIN,
    LONGEST,
    LOST,
    MOST_SHARES,
    OF_A_DEVICE,
    OF_ONE,
    REST,
    SPAN,
    TRIAL,
    UPDATES_LOOKED_AT,
    VERSIONS_LOOKED_AT,
    Declared,
    Harm,
    Share,
    Tempering,
)

DEVICES = 20
EACH = 4
"""Updates in a version."""


def fleet(losses: Sequence[float], first_version: int = 0, *, lying: int = 0, lie: float = 0.0) -> Harm:
    """Of versions in which devices declare these losses, each as often as any other; the first ones `lie`."""
    harm = Harm(first_version)
    for place, loss in enumerate(losses):
        version = first_version + place + 1
        devices = [(EACH * place + each) % DEVICES for each in range(EACH)]
        declared = [lie if each < lying else loss * (1 + each / DEVICES) for each in devices]
        harm.note(version, of_version(devices, declared, version))
    return harm


def of_version(devices: Sequence[int], losses: Sequence[float], version: int) -> list[Declared]:
    base = max(version - 1 - DEVICES // EACH, version // 1000 * 1000)
    return [Declared(f"pi-{each}", loss, base) for each, loss in zip(devices, losses, strict=True)]


def is_harmed(harm: Harm) -> bool:
    return harm.tempering_after(10_000, [], None) is not None


FALLING = [2 * 0.9**each + 0.2 for each in range(40)]


def shares_by_numpy(declared: Sequence[Declared], first_version: int) -> np.ndarray:
    """Of each device the last r of updates but those that began with `first_version`, and of these the last."""
    began = [
        each.loss for place, each in enumerate(declared) if place < FEWEST_FIRST or each.base_version == first_version
    ]
    usual = np.quantile(began, 0.75)
    found, devices = [], []
    for place, each in enumerate(declared):
        if each.base_version == first_version:
            continue
        own = np.array([other.loss for other in declared[:place] if other.device == each.device])
        if not own.size and len(began) < FEWEST_OF_FIRST:
            continue
        devices.append(each.device)
        if not own.size:
            found.append(float(each.loss > usual))
            continue
        first = max(own[0], usual)
        found.append((each.loss - own.min()) / max(first - own.min(), LEAST_GAIN * first))
    counted = [share for at, share in enumerate(found) if devices[at:].count(devices[at]) <= OF_ONE]
    return np.array(counted[-MOST_SHARES:])


@given(st.integers(0, 10_000))
def test_harm_is_the_equation(seed: int) -> None:
    generator = np.random.default_rng(seed)
    harm, declared = Harm(1000), []
    for version in range(1001, 1041):
        devices = generator.choice(DEVICES, EACH, replace=False)
        base = 1000 if version < 1004 else version - 3
        losses = np.exp(generator.normal(1 - (version - 1000) / 40, 0.5, EACH))
        these = [Declared(f"pi-{each}", float(loss), base) for each, loss in zip(devices, losses, strict=True)]
        harm.note(version, these)
        declared += these
    shares = shares_by_numpy(declared, 1000)
    assert np.allclose([each.lost for each in harm.shares], shares)
    assert is_harmed(harm) == (np.sort(shares)[(len(shares) - 1) // 2] > LOST)


def test_devices_that_learn_are_not_harmed_and_those_that_lose_it_are() -> None:
    assert not is_harmed(fleet(FALLING))
    assert not is_harmed(fleet([*FALLING, *[FALLING[-1] * 1.1] * 20]))
    assert is_harmed(fleet([*FALLING, *[FALLING[5]] * 10]))


def test_what_comes_with_the_next_version_counts() -> None:
    harm = fleet([*FALLING, *[FALLING[5]] * 3])
    assert not is_harmed(harm)
    devices = range(DEVICES)
    assert harm.tempering_after(99, of_version(devices, [FALLING[0]] * DEVICES, 99), None) == (99, 99 + TRIAL, None)


def test_harmed_before_anything_was_learned() -> None:
    """Most of the fleet is yet to come: compared with those that began with the task's own weights."""
    harm = Harm()
    harm.note(1, [Declared(f"pi-{each}", 2.0 + each / 10, 0) for each in range(FEWEST_OF_FIRST)])
    for version in range(2, 2 + MOST_SHARES):
        harm.note(version, [Declared(f"new-{version}", 3.2, version - 1)])
    assert is_harmed(harm)
    for version in range(50, 50 + MOST_SHARES):
        harm.note(version, [Declared(f"newer-{version}", 2.5, version - 1)])
    assert not is_harmed(harm)


@given(st.integers(0, DEVICES // 2 - 2), st.floats(-1e9, 1e9))
def test_fewer_than_half_that_lie_bring_nothing_about(lying: int, lie: float) -> None:
    """Neither harm where there is none, nor peace where there is some."""
    honest_first = fleet(FALLING).first
    for losses in (FALLING, [*FALLING, *[FALLING[0] * 3] * 20]):
        harm = Harm()
        harm.first, harm.first_are_known = honest_first, True
        for place, loss in enumerate(losses):
            devices = [(EACH * place + each) % DEVICES for each in range(EACH)]
            told = [lie if each < lying else loss * (1 + each / DEVICES) for each in devices]
            harm.note(place + 1, of_version(devices, told, place + 1))
        assert is_harmed(harm) == (losses is not FALLING)


@pytest.mark.parametrize("sign", [0.0, -1.0])
def test_losses_without_a_scale_tell_nothing(sign: float) -> None:
    assert not is_harmed(fleet([sign * each for each in FALLING] + [5.0] * 20))


def test_what_began_with_the_own_weights_tells_nothing() -> None:
    harm = Harm(7)
    for version in range(8, 60):
        harm.note(version, [Declared(f"pi-{version}", float(version), 7)])
    assert not harm.shares


def test_too_few_updates_are_no_reason() -> None:
    harm = Harm()
    harm.note(1, [Declared(f"pi-{each}", 2.0, 0) for each in range(FEWEST_OF_FIRST)])
    few = [Declared(f"new-{each}", 99.0, 5) for each in range(FEWEST_SHARES)]
    harm.note(9, few[1:])
    assert not is_harmed(harm)
    harm.note(10, few[:1])
    assert is_harmed(harm)


def test_one_that_floods_is_one() -> None:
    """It neither brings harm about, nor makes others unheard."""
    harm, harmed = fleet(FALLING), fleet([*FALLING, *[FALLING[0] * 3] * 10])
    for version in range(100, 200):
        harm.note(version, [Declared("flood", 1e12, version - 1)] * EACH)
        harmed.note(version, [Declared("flood", 1e-9, version - 1)] * EACH)
    assert not is_harmed(harm)
    assert is_harmed(harmed)


HARMED = fleet([*FALLING, *[FALLING[0] * 3] * 10])
WELL = fleet(FALLING)


def test_a_trial_that_helps_is_gone_on_with_and_lasts_longer_the_next_time() -> None:
    trial = HARMED.tempering_after(100, [], None)
    assert trial == (100, 100 + TRIAL, None)
    for harm in (HARMED, WELL):
        assert harm.tempering_after(99 + TRIAL, [], trial) == trial
    longer = WELL.tempering_after(100 + TRIAL, [], trial)
    assert longer == (100, 100 + TRIAL + SPAN, None)
    assert longer.is_on(99 + TRIAL + SPAN)
    over = WELL.tempering_after(longer.until, [], longer)
    assert over == longer._replace(rests_until=longer.until)
    assert not over.is_on(longer.until)
    lasted = TRIAL + SPAN
    soon, late = longer.until + lasted, longer.until + lasted + 1
    assert HARMED.tempering_after(soon, [], over) == (soon, soon + 2 * lasted, None)
    assert HARMED.tempering_after(late, [], over) == (late, late + TRIAL, None)
    assert WELL.tempering_after(soon, [], over) == over


def test_a_trial_that_does_not_help_is_the_last_one_for_long() -> None:
    trial = Tempering(100, 100 + TRIAL)
    rests = HARMED.tempering_after(trial.until, [], trial)
    assert rests == (100, 100 + TRIAL, 100 + (1 + REST) * TRIAL)
    assert HARMED.tempering_after(rests.rests_until - 1, [], rests) == rests
    again = HARMED.tempering_after(rests.rests_until, [], rests)
    assert again == (rests.rests_until, rests.rests_until + TRIAL, None)


def test_more_than_a_third_that_are_harmed_by_it_are_heard() -> None:
    """An honest minority that is tempered."""
    for minority, heard in ((10, False), (11, True)):
        harm = Harm(shares=[Share(f"pi-{each}", float(each < minority)) for each in range(MOST_SHARES)])
        found = harm.tempering_after(200, [], Tempering(180, 200))
        assert found is not None
        assert (found.until == 200) == heard


def test_it_lasts_no_longer_than_the_longest() -> None:
    longest = Tempering(0, LONGEST, LONGEST)
    assert HARMED.tempering_after(LONGEST, [], longest) == (LONGEST, 2 * LONGEST, None)


def test_what_is_remembered_is_bounded() -> None:
    harm = Harm()
    for version in range(1, 2 * VERSIONS_LOOKED_AT):
        harm.note(version, [Declared("one", 1.0, version - 1), Declared(f"pi-{version}", 1.0, version - 1)])
    assert len(harm.looked_at) == VERSIONS_LOOKED_AT
    assert len(harm.of_devices) == VERSIONS_LOOKED_AT + 1
    assert len(harm.of_devices["one"]) == OF_A_DEVICE
    harm.note(9_999, [Declared(f"new-{each}", 1.0, 1) for each in range(UPDATES_LOOKED_AT)])
    harm.note(10_000, [Declared(f"newer-{each}", 1.0, 1) for each in range(UPDATES_LOOKED_AT)])
    assert harm.updates == len(harm.of_devices) == UPDATES_LOOKED_AT
    harm.note(10_001, [])
    assert harm.updates == UPDATES_LOOKED_AT
