"""Back-off: full jitter below a ceiling that doubles, up to the last one."""

from hypothesis import given
from hypothesis import strategies as st

from fleet_host.backoff import FIRST_CEILING_SECONDS, LAST_CEILING_SECONDS, delay_seconds

attempts = st.integers(0, 10**9)
uniforms = st.floats(0, 1, exclude_max=True)


@given(attempts, uniforms)
def test_delay_is_the_share_of_its_ceiling_that_was_drawn(attempt, uniform):
    ceiling = min(LAST_CEILING_SECONDS, FIRST_CEILING_SECONDS * 2 ** min(attempt, 10))
    assert delay_seconds(attempt, uniform) == uniform * ceiling


@given(attempts)
def test_even_the_last_retry_may_come_at_once_so_a_fleet_spreads_evenly(attempt):
    assert delay_seconds(attempt, 0.0) == 0.0
    assert delay_seconds(attempt, 0.5) * 2 <= LAST_CEILING_SECONDS


@given(attempts, uniforms, st.floats(0.1, 10), st.floats(10, 1000))
def test_ceilings_are_the_callers(attempt, uniform, first, last):
    assert 0 <= delay_seconds(attempt, uniform, first=first, last=last) <= last
    assert delay_seconds(0, uniform, first=first, last=last) <= first
