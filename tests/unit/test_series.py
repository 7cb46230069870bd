"""Accounts share evenly what there is room for; series that agent.toml names are always kept, over restarts too."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.preparation.refusal import ReadingRefusedError
from edge_agent.sources.series import MAX_SERIES, SeriesOfReadings, key_of
from fleet_protocol.bundle import parse_description

OCCUPANCY = parse_description((Path(__file__).parents[2] / "models/occupancy/bundle/task.json").read_bytes())
OWN = {"room", "room/kitchen"}


class Lost(list):
    def __call__(self, key: str, account: str) -> None:
        self.append((key, account))


def series_of(states=None, own=OWN, lost=lambda _key, _account: None) -> SeriesOfReadings:
    return SeriesOfReadings({"room": OCCUPANCY}.get, states, own, made_room=lost)


def refused(series: SeriesOfReadings, name: str, account: str) -> str:
    with pytest.raises(ReadingRefusedError) as refusal:
        series.of("room", name, account)
    assert refusal.value.reason == "too_many"
    return str(refusal.value)


def fill(series: SeriesOfReadings, account: str, count: int = MAX_SERIES) -> None:
    for number in range(count):
        series.of("room", f"{account}-{number}", account)


def held(series: SeriesOfReadings, account: str) -> list[str]:
    return [key for key in series.status if key.startswith(f"room/{account}-")]


def test_account_that_names_all_series_gives_way_to_another_down_to_an_even_share():
    lost = Lost()
    series = series_of(lost=lost)
    fill(series, "ann")
    assert refused(series, "ann-more", "ann") == (
        "ann has named 32 of the 32 series that are kept, its share; name fewer, and restart the agent"
    )
    fill(series, "bob", 16)
    assert (len(held(series, "ann")), len(held(series, "bob"))) == (16, 16)
    assert lost == [(f"room/ann-{number}", "ann") for number in range(16)], "those that were used longest ago"
    assert "bob has named 16 of the 32" in refused(series, "bob-more", "bob")
    assert "ann has named 16 of the 32" in refused(series, "ann-0", "ann")


def test_series_of_agent_toml_are_kept_whatever_programs_name():
    series = series_of()
    fill(series, "ann")
    for name in ("", "kitchen"):
        kept = series.of("room", name)
        assert series.of("room", name, "ann") is kept
    fill(series, "bob", 16)
    assert set(series.status) >= OWN


@given(st.lists(st.tuples(st.sampled_from(["ann", "bob", "eve"]), st.integers(0, 40)), max_size=200))
def test_there_are_never_more_than_are_kept_and_no_account_falls_below_its_share(asked):
    series = series_of()
    wanted = {"ann": set(), "bob": set(), "eve": set()}
    for account, number in asked:
        wanted[account].add(number)
        try:
            series.of("room", f"{account}-{number}", account)
        except ReadingRefusedError:
            assert len(held(series, account)) >= MAX_SERIES // 3
    assert sum(len(held(series, account)) for account in wanted) <= MAX_SERIES
    for account, numbers in wanted.items():
        assert len(held(series, account)) >= min(len(numbers), MAX_SERIES // 3)


def test_shares_are_known_after_a_restart_and_names_that_are_used_no_longer_make_room_first():
    before = series_of()
    fill(before, "ann", 20)
    fill(before, "bob", 12)
    after = series_of(before.states)
    series = after.of("room", "ann-19", "ann")
    after.of("room", "ann-new", "ann")
    assert "room/ann-0" not in after.status
    assert after.of("room", "ann-19", "ann") is series
    assert len(held(after, "bob")) == 12, "not what another account has named"


def test_series_of_an_earlier_release_are_nobodys_and_make_room_for_anybody():
    states = {key_of("room", str(number)): state for number, state in enumerate([series_states()] * MAX_SERIES)}
    series = series_of({"room": series_states()} | states)
    fill(series, "ann", 5)
    assert (len(series.status), "room" in series.status) == (MAX_SERIES + 1, True)
    assert {"room/0", "room/4"}.isdisjoint(series.status)


def test_what_agent_toml_named_once_does_not_grow_over_restarts():
    states = {}
    for run in range(3):
        own = {f"room/run-{run}-{number}" for number in range(30)}
        series = series_of(states, own)
        for key in own:
            series.of("room", key.partition("/")[2])
        states = series.states
    assert len(states) == 30 + MAX_SERIES


def series_states():
    series = series_of()
    series.of("room", "")
    return series.states["room"]
