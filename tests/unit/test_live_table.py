"""The live view must keep its height, stay within the terminal and show every number whole."""

import io

import msgspec
import pytest
from rich.console import Console

from workbench.demo.live_table import progress_line, render_live
from workbench.report.history import AccuracyPoint, DeviceRow
from workbench.report.privacy_told import Told

BROKER = "mosquitto 127.0.0.1:1883"
NEWEST_EVENTS = ["agent 3 killed and restarted", "broker killed [bold]with its disk[/bold]"]


def devices(count: int, *, large: bool = False) -> list[DeviceRow]:
    return [
        DeviceRow(
            name=f"pi-{number:02}" + ("-in-the-cellar-behind-the-shelf" if large else ""),
            state=("sleeping", "training", "sending", "offline")[number % 4],
            version=1_234_567 if large else 12,
            staleness=1234.5 if large else None,
            applied=7_654_000 if large else 2,
            buffered=321 if large else 1,
            uplink_bytes=99_900_000 if large else 1_230,
            samples=98_765 if large else 17,
            samples_expected=99_999 if large else 180,
            samples_per_second=2.0,
            label_counts=[1, 2, 3],
        )
        for number in range(count)
    ]


def test_what_passes_the_relay_has_a_column_where_a_device_has_a_cut() -> None:
    fleet = devices(3)
    assert not any("relayed" in line for line in lines(fleet, versions(1)))
    fleet[1] = msgspec.structs.replace(fleet[1], cut="1-2", relayed_up_bytes=2_000_000, relayed_down_bytes=500_000)
    shown = lines(fleet, versions(1))
    assert any("relayed" in line for line in shown)
    assert any("2.5 MB" in line and "pi-01" in line for line in shown)


def versions(count: int) -> list[AccuracyPoint]:
    return [
        AccuracyPoint(2.0 * number, number, number / count, 1_000 * number, 42_000 * number)
        for number in range(count + 1)
    ]


def lines(
    fleet: list[DeviceRow],
    accuracy: list[AccuracyPoint],
    *,
    width: int = 80,
    height: int = 24,
    elapsed_seconds: float = 103.0,
    broker: str = BROKER,
    central_accuracy: float | None = 0.9721,
    events: list[str] = NEWEST_EVENTS,
) -> list[str]:
    console = Console(width=width, height=height, record=True, force_terminal=True, file=io.StringIO())
    console.print(
        render_live(
            fleet,
            accuracy,
            elapsed_seconds=elapsed_seconds,
            broker=broker,
            central_accuracy=central_accuracy,
            events=events,
        )
    )
    return console.export_text().splitlines()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("large", [False, True])
def test_every_device_is_one_line_with_its_numbers_whole(width: int, large: bool) -> None:
    shown = lines(devices(8, large=large), versions(20), width=width)
    assert max(map(len, shown)) <= width
    rows = [line for line in shown if line.startswith("pi-")]
    assert len(rows) == 8
    numbers = ["1234567", "1234.5", "7654321", "99.9 MB", "98765/99999"] if large else ["12", "-", "3", "1.23 kB"]
    for row in rows:
        assert all(f" {number}" in row for number in numbers)
        assert row.count("…") == (1 if large else 0)


def test_wide_terminals_get_a_progress_bar() -> None:
    assert "━" in "".join(lines(devices(2), versions(2), width=120))
    assert "━" not in "".join(lines(devices(2), versions(2), width=80))


@pytest.mark.parametrize("width", [80, 120])
def test_height_does_not_change_while_a_run_goes_on(width: int) -> None:
    stages = [
        lines(devices(8), [], width=width, elapsed_seconds=0.0, central_accuracy=None, events=[]),
        lines(devices(8), versions(1), width=width, elapsed_seconds=1.0, events=["one"]),
        lines(devices(8, large=True), versions(500), width=width, elapsed_seconds=9999.0, events=["x" * 300] * 9),
        lines(devices(8), versions(3), width=width, broker="b" * 200, events=["two\nlines", "three\n\n\nlines"]),
    ]
    assert {len(stage) for stage in stages} == {len(stages[0])}
    assert max(len(line) for stage in stages for line in stage) <= width


def test_eight_devices_fit_a_terminal_of_24_lines() -> None:
    assert len(lines(devices(8), versions(5))) < 24


@pytest.mark.parametrize("height", [24, 40, 100])
def test_64_devices_never_outgrow_the_terminal_and_the_rest_is_counted(height: int) -> None:
    shown = lines(devices(64), versions(5), height=height)
    assert len(shown) < height
    rows = sum(line.startswith("pi-") for line in shown)
    assert any("64 devices: 16 offline, 16 sending, 16 sleeping, 16 training" in line for line in shown)
    assert any(f"({64 - rows} not shown)" in line for line in shown) == (rows < 64)
    assert any("agent 3 killed" in line for line in shown)


def test_headlines_say_time_broker_accuracy_and_traffic() -> None:
    title, facts, *_ = lines(devices(8), versions(20))
    assert title.rstrip() == "edgeflock demo  1 min 43 s  broker: mosquitto 127.0.0.1:1883"
    assert facts.rstrip() == "100.0 % right, pooled 97.2 %  version 20  24 updates  9.84 kB sent, 42x less"


def test_chart_grows_with_the_accuracy_and_leaves_the_time_before_the_first_version_empty() -> None:
    accuracy = [AccuracyPoint(50.0, 1, 0.5, 1, 1), AccuracyPoint(75.0, 2, 1.0, 2, 2)]
    chart = lines(devices(1), accuracy, elapsed_seconds=100.0, central_accuracy=None)[2:7]
    columns = ["".join(line.ljust(80)[column] for line in chart) for column in (6, 41, 42, 60, 61, 79)]
    assert columns == ["     ", "     ", "  ▄██", "  ▄██", "█████", "█████"]


def test_dashes_mark_the_row_of_pooled_training_where_the_curve_is_not() -> None:
    reached_late = [AccuracyPoint(50.0, 1, 0.5, 1, 1)]
    chart = lines(devices(1), reached_late, elapsed_seconds=100.0, central_accuracy=0.5)[2:7]
    assert [line.count("┄") for line in chart] == [0, 0, 36, 0, 0]
    empty = lines(devices(1), [], central_accuracy=1.0)[2:7]
    assert [line.count("┄") for line in empty] == [74, 0, 0, 0, 0]


def test_only_the_newest_events_are_shown_and_taken_literally() -> None:
    shown = lines(devices(1), [], events=["forgotten", "first", "second", *NEWEST_EVENTS])
    assert [line.rstrip() for line in shown[-4:]] == ["first", "second", *NEWEST_EVENTS]


def test_progress_line_is_plain_ascii_with_the_same_facts() -> None:
    line = progress_line(devices(2), versions(20), elapsed_seconds=61.0, central_accuracy=0.9721)
    assert line == (
        "1 min 01 s  100.0 % right, pooled 97.2 %  version 20  6 updates  2.46 kB sent, 42x less"
        "  34/360 samples  2 devices: 1 sleeping, 1 training"
    )
    assert line.isascii()


def test_progress_line_before_anything_happened() -> None:
    assert progress_line([], [], elapsed_seconds=0.0, central_accuracy=None) == (
        "0 s  nothing learned yet  version -  0 updates  0 B sent  0/0 samples  no devices yet"
    )


def test_what_was_told_stands_beside_traffic() -> None:
    told = [Told("device", 3.456, 8.0, 1e-5, versions_left=17)]
    line = progress_line(devices(3), versions(1), elapsed_seconds=9.0, central_accuracy=None, told=told)
    assert "epsilon 3.46 of 8 per device" in line
    view = render_live(
        devices(3), versions(1), elapsed_seconds=9.0, broker=BROKER, central_accuracy=None, events=[], told=told
    )
    console = Console(width=100, height=24, file=io.StringIO())
    console.print(view)
    assert "epsilon 3.46 of 8 per device" in console.file.getvalue()
