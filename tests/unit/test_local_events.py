"""Schedules on a clock that may jump, and files that wake an agent once each."""

import asyncio
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.configuration import TaskSettings
from edge_agent.core.triggers import Condition, TriggerSettings
from edge_agent.shell.host.local_events import LONGEST_SLEEP_SECONDS, LocalEvents, has_come, seconds_until
from tests.support.waiting import DEADLINE_SECONDS

NIGHTLY = "30 2 * * *"
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1))


@given(MOMENTS, MOMENTS)
def test_time_has_come_once_on_any_way_over_it_and_never_on_the_way_back(one, other):
    since, now = sorted((one, other))
    assert not has_come(NIGHTLY, now, since)
    passed = [
        day
        for day in (since.date(), since.date() + timedelta(1))
        if since < datetime(day.year, day.month, day.day, 2, 30) <= now
    ]
    assert has_come(NIGHTLY, since, now) == bool(passed)


@given(MOMENTS)
def test_sleep_ends_at_the_next_time_or_soon_enough_to_see_that_the_clock_was_set(now):
    assert 0 < seconds_until(NIGHTLY, now) <= LONGEST_SLEEP_SECONDS


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("daily", "is no cron line"),
        ("61 * * * *", "Bad minute"),
        ("* * * *", "five fields"),
        ("0 30 2 * * *", "five fields"),
        ("0 0 31 2,4 *", "Bad day-of-month"),
    ],
)
def test_schedule_that_is_none_is_refused_with_what_is_wrong(line, words):
    with pytest.raises(ValueError, match=words):
        TaskSettings("digits", TriggerSettings(schedule=line))


async def first_event(settings: TriggerSettings, **clock: object) -> tuple[str, Condition]:
    happened: asyncio.Queue[tuple[str, Condition]] = asyncio.Queue()
    events = LocalEvents([("digits", settings)], lambda *event: happened.put_nowait(event), **clock)
    async with asyncio.timeout(DEADLINE_SECONDS):
        running = asyncio.create_task(events.run())
        event = await happened.get()
        running.cancel()
    return event


async def test_schedule_wakes_at_its_time():
    moments = iter([datetime(2026, 1, 1, 2, 29, 59, 999_000)])
    assert await first_event(
        TriggerSettings(schedule=NIGHTLY), now=lambda: next(moments, datetime(2026, 1, 1, 2, 30))
    ) == ("digits", Condition.SCHEDULE)


async def test_file_wakes_and_is_gone(tmp_path):
    (tmp_path / "wake").touch()
    settings = TriggerSettings(wake_file=str(tmp_path / "wake"))
    assert await first_event(settings) == ("digits", Condition.WAKE_FILE)
    assert not (tmp_path / "wake").exists()


async def test_file_that_stays_wakes_nothing_and_is_said(tmp_path, caplog):
    (tmp_path / "wake").mkdir()
    noted: list[Condition] = []
    events = LocalEvents(
        [("digits", TriggerSettings(wake_file=str(tmp_path / "wake")))], lambda _, it: noted.append(it)
    )
    running = asyncio.create_task(events.run())
    async with asyncio.timeout(DEADLINE_SECONDS):
        while "wake_file_stays" not in caplog.text:  # noqa: ASYNC110 - a log announces nothing
            await asyncio.sleep(0)
    running.cancel()
    assert noted == []


async def test_without_a_schedule_or_a_file_nothing_runs():
    async with asyncio.timeout(DEADLINE_SECONDS):
        await LocalEvents([("digits", TriggerSettings())], lambda *_: None).run()
