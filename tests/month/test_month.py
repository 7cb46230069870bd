"""Thirty days of a fleet whose links are up for 2 % of the time, with all that happens to cards, clocks and power."""

from tests.month.fleet import MEMBERS
from tests.month.month import Month

SEED = 3


def test_in_a_month_nothing_is_lost_nothing_counts_twice_nothing_stops_and_no_card_fills(tmp_path) -> None:
    month = Month(tmp_path, SEED, MEMBERS[:2]).run()
    assert min(month.power_cuts, month.samples_refused, month.samples_dropped, month.updates_taken_back) > 0
