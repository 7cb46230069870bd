"""The demo on a terminal: how the accuracy grows, what every device does, and what happened last.

Everything has a fixed height for a given number of devices and a given terminal, so that nothing jumps.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from workbench.demo.drawn.gallery import DrawnGroup
from workbench.demo.drawn.picture_strip import strip_lines
from workbench.report.history import AccuracyPoint, DeviceRow, Totals
from workbench.report.labels import bytes_label, duration_label, percent_label
from workbench.report.privacy_told import Told, told_words

CHART_ROWS = 5
EVENT_ROWS = 4
FIXED_ROWS = 2 + CHART_ROWS + 2 + 1 + EVENT_ROWS
"""Headline (2), chart or pictures, table header with its rule (2), the line below the devices (1), events."""
MOST_PICTURE_ROWS = 7
"""Lines that pictures take, at least as many as the chart; below them there is a chart too where there is room."""
SPARE_ROWS = 1
"""A live display as high as the terminal scrolls it when it ends."""
FEWEST_DEVICES = 3
"""Shown even on a terminal that is too low for them."""

WIDE_COLUMNS = 100
"""From this width on there is room for a progress bar per device."""
BAR_CELLS = 20
LONGEST_NAME = 16
FEWEST_TIMES = 2
"""Less than half of the bytes is what is worth a word."""

EIGHTHS = " ▁▂▃▄▅▆▇█"
CHART_LABELS = {CHART_ROWS - 1: "100 % ", 0: "  0 % "}
"""By row, counted from the bottom."""
LABEL_CELLS = 6
STATE_STYLES = {"sleeping": "dim", "training": "bold green", "sending": "cyan", "offline": "bold red"}


def render_live(
    devices: Sequence[DeviceRow],
    accuracy: Sequence[AccuracyPoint],
    *,
    elapsed_seconds: float,
    broker: str,
    central_accuracy: float | None,
    events: Sequence[str],
    drawn: Sequence[DrawnGroup] = (),
    told: Sequence[Told] = (),
) -> RenderableType:
    """The present state of a run; `events` are oldest first. Fits 80 columns, uses up to the whole width."""
    return LiveView(devices, accuracy, elapsed_seconds, broker, central_accuracy, events, drawn, told)


def progress_line(
    devices: Sequence[DeviceRow],
    accuracy: Sequence[AccuracyPoint],
    *,
    elapsed_seconds: float,
    central_accuracy: float | None,
    told: Sequence[Told] = (),
) -> str:
    """The same facts as one line of ASCII, for logs."""
    sums = Totals.of(devices)
    facts = _facts(devices, accuracy, central_accuracy, told)
    return "  ".join(
        (
            duration_label(elapsed_seconds),
            *facts,
            f"{sums.samples:,}/{sums.samples_expected:,} samples",
            _states(devices),
        )
    )


@dataclass(frozen=True, slots=True)
class LiveView:
    """Lays itself out when it is printed, because only then the size of the terminal is known."""

    devices: Sequence[DeviceRow]
    accuracy: Sequence[AccuracyPoint]
    elapsed_seconds: float
    broker: str
    central_accuracy: float | None
    events: Sequence[str]
    drawn: Sequence[DrawnGroup] = ()
    told: Sequence[Told] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Headline, chart, devices, events; every line is cut rather than wrapped."""
        room = max(FEWEST_DEVICES, options.max_height - FIXED_ROWS - SPARE_ROWS - bool(self.drawn))
        yield from (_one_row(line, options.max_width) for line in self._headlines())
        spare = room - len(self.devices)
        if self.drawn:
            rows = min(MOST_PICTURE_ROWS, CHART_ROWS + max(0, spare))
            spare -= rows
            in_colour = console.color_system is not None
            yield from strip_lines(self.drawn, options.max_width, rows, in_colour=in_colour)
        if not self.drawn or spare >= 0:
            yield from self._chart(options.max_width - LABEL_CELLS)
        yield _device_table(self.devices[:room], wide=options.max_width >= WIDE_COLUMNS)
        hidden = f"  ({len(self.devices) - room} not shown)" if len(self.devices) > room else ""
        yield _one_row(Text(_states(self.devices) + hidden, style="dim"), options.max_width)
        # Split and joined, because an event that brings its own line break would move everything.
        events = [" ".join(event.split()) for event in self.events[-EVENT_ROWS:]]
        yield from (_one_row(Text(event, style="yellow"), options.max_width) for event in events)
        yield from (Text() for _ in range(EVENT_ROWS - len(events)))

    def _headlines(self) -> tuple[Text, Text]:
        accuracy, *others = _facts(self.devices, self.accuracy, self.central_accuracy, self.told)
        title = Text.assemble(
            ("edgeflock demo", "bold"), "  ", duration_label(self.elapsed_seconds), "  broker: ", self.broker
        )
        return title, Text.assemble((accuracy, "bold green"), "  ", "  ".join(others))

    def _chart(self, columns: int) -> Iterator[Text]:
        """Accuracy from 0 to 100 % over the time so far, top row first; dashes mark pooled training."""
        levels = _levels(self.accuracy, self.elapsed_seconds, columns)
        central = self.central_accuracy
        dashed = None if central is None else min(CHART_ROWS - 1, int(central * CHART_ROWS))
        for row in reversed(range(CHART_ROWS)):
            blocks = "".join(EIGHTHS[min(8, max(0, level - 8 * row))] for level in levels)
            line = Text(blocks.replace(" ", "┄") if row == dashed else blocks, style="green")
            line.highlight_regex("┄+", "dim")
            yield Text.assemble((CHART_LABELS.get(row, " " * LABEL_CELLS), "dim"), line)


def _levels(accuracy: Sequence[AccuracyPoint], elapsed_seconds: float, columns: int) -> list[int]:
    """Per column the newest accuracy by then, in eighths of a row; 0 where no version existed yet."""
    times = [point.seconds for point in accuracy]
    end = max([elapsed_seconds, *times])
    newest = (bisect_right(times, end * (column + 1) / columns) - 1 for column in range(columns))
    return [max(1, round(accuracy[index].accuracy * 8 * CHART_ROWS)) if index >= 0 else 0 for index in newest]


def _device_table(devices: Sequence[DeviceRow], *, wide: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    # Fixed widths, or the columns would dance as the numbers grow.
    table.add_column("device", width=LONGEST_NAME, no_wrap=True, overflow="ellipsis")
    table.add_column("state", width=9, no_wrap=True, overflow="ellipsis")
    is_split = any(device.cut for device in devices)
    columns = [("version", 7), ("staleness", 9), ("updates", 7), ("sent", 7), ("samples", 11)]
    for name, width in columns[:-1] + [("relayed", 7)] * is_split + columns[-1:]:
        table.add_column(name, width=width, no_wrap=True, justify="right")
    if wide:
        table.add_column("", width=BAR_CELLS)
    for device in devices:
        relayed = bytes_label(device.relayed_up_bytes + device.relayed_down_bytes)
        cells: list[RenderableType] = [
            Text(device.name),
            Text(device.state, style=STATE_STYLES.get(device.state, "")),
            f"{device.version}",
            "-" if device.staleness is None else f"{device.staleness:.1f}",
            f"{device.applied + device.buffered}",
            bytes_label(device.uplink_bytes),
            *([relayed] if is_split else []),
            f"{device.samples}/{device.samples_expected}",
        ]
        bar = ProgressBar(
            total=max(1, device.samples_expected),
            completed=device.samples,
            width=BAR_CELLS,
            complete_style="cyan",
            finished_style="green",
        )
        table.add_row(*cells, *((bar,) if wide else ()))
    return table


def _facts(
    devices: Sequence[DeviceRow],
    accuracy: Sequence[AccuracyPoint],
    central_accuracy: float | None,
    told: Sequence[Told],
) -> tuple[str, ...]:
    """Accuracy first, then version, updates and traffic, and what was told where that is bounded."""
    newest = accuracy[-1] if accuracy else None
    sums = Totals.of(devices)
    pooled = "" if central_accuracy is None else f", pooled {percent_label(central_accuracy)}"
    ratio = newest.dense_uplink_bytes / newest.uplink_bytes if newest and newest.uplink_bytes else None
    return (
        (f"{percent_label(newest.accuracy)} right" if newest else "nothing learned yet") + pooled,
        f"version {newest.version if newest else '-'}",
        f"{sums.applied + sums.buffered} updates",
        f"{bytes_label(sums.uplink_bytes)} sent" + (f", {ratio:.0f}x less" if ratio and ratio >= FEWEST_TIMES else ""),
        *told_words(told),
    )


def _states(devices: Sequence[DeviceRow]) -> str:
    if not devices:
        return "no devices yet"
    counts = Counter(device.state for device in devices)
    noun = "device" if len(devices) == 1 else "devices"
    return f"{len(devices)} {noun}: " + ", ".join(f"{counts[state]} {state}" for state in sorted(counts))


def _one_row(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    return text
