"""`report.html`: a demo run as one page, in plain words; the charts are the dashboard's (`page`, `plots`)."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import zip_longest

from workbench.report.drawn_pictures import (
    DRAWN_DEVICES_HINT,
    DRAWN_HINT,
    DRAWN_TIME_HINT,
    FORMED_HINT,
    formed_table,
    pictures_table,
)
from workbench.report.helped_devices import RELAYED_HINT, cells, relayed_table
from workbench.report.history import AccuracyPoint, DeviceRow, RunHistory, Subject, Summary, Totals
from workbench.report.labels import bytes_label, duration_label, percent_label
from workbench.report.one_message import BESIDE_ROUNDS_HINT, SOLVED_HINT, SPOKEN_HINT, beside_rounds
from workbench.report.page import whole_page
from workbench.report.plots import Axis, Line, Reference, bar_chart, line_chart, strip, strip_header
from workbench.report.privacy_told import told_notes

MAX_STALENESS_BARS = 25
"""Above this many values the histogram puts several into one bar."""
ACCURACY_AXIS = Axis("read correctly", "percent")

TIME_HINT = """Every dot is a version of the model that all devices share (the mean of the last few, as one would
use it), tested on samples that no device ever trained on. The dashed line is what one computer reaches that was given
everybody's samples. <b>The closer the curve comes to it, the less it costs to leave the samples where they are.</b>"""
BYTES_HINT = """The same versions twice: over the bytes the devices really sent, and over what those updates
weigh when every number of the model is sent as a float32 each time. <b>Further left is cheaper.</b> The axis
is logarithmic: equal distances are equal factors, so the gap between the curves is how many times fewer."""
STALENESS_HINT = """A device trains on the version it has, and meanwhile the others may finish newer ones.
Staleness counts how many: <b>0</b> is an update to the newest version. Late updates are not thrown away, they
only weigh less, so a slow or sleepy device still counts and nobody waits for it."""
DEVICES_HINT = """Every row is a device, every cell a digit from 0 to 9: the stronger the colour, the more
samples of that digit the device has seen. <b>An empty cell is a digit it never saw</b>; what the shared model
knows about that one comes from the others. Samples stay where they are: only changes to the model travel."""
STOPPED_EARLY = '<p class="notice">The run was stopped early ({}): not all samples were used.</p>\n'


@dataclass(frozen=True, slots=True)
class KeyFigure:
    """One card at the top; `style` is empty, `good` or `bad`."""

    value: str
    name: str
    note: str
    style: str = ""


def render_report(history: RunHistory) -> str:
    """The whole page as HTML; complete also for a run that was stopped before its first version."""
    summary = history.summary
    time_hint, devices_hint = (SOLVED_HINT, SPOKEN_HINT) if summary.rounds else (TIME_HINT, DEVICES_HINT)
    sections = []
    if history.drawn:
        time_hint, devices_hint = DRAWN_TIME_HINT, DRAWN_DEVICES_HINT
        sections += [
            _section("What each cluster draws", pictures_table(history.drawn), DRAWN_HINT),
            _section("How the pictures formed", formed_table(history.drawn), FORMED_HINT),
        ]
    sections += [_section("How fast it learned", _accuracy_over_time(history), time_hint)]
    if summary.rounds:
        sections.append(_section("One message beside rounds", beside_rounds(summary), BESIDE_ROUNDS_HINT))
    else:
        sections += [
            _section("What it cost in traffic", _accuracy_over_bytes(history.accuracy), BYTES_HINT),
            _section("How fresh the updates were", _staleness_histogram(history.staleness), STALENESS_HINT),
        ]
    sections.append(_section("What each device saw and did", _device_table(history.devices), devices_hint))
    if history.helpers:
        sections.append(_section("What devices left to their helper", relayed_table(history), RELAYED_HINT))
    stopped = STOPPED_EARLY.format(escape(history.failure) or "Ctrl-C") if summary.stopped_early else ""
    return whole_page(
        f"edgeflock demo: {_count(summary.agents, 'device')}",
        f'<p class="kicker">edgeflock demo</p>\n<h1>{_headline(summary, history.subject)}</h1>\n{stopped}'
        f'<dl class="cards">\n{"".join(map(_card, _key_figures(summary, history.subject)))}</dl>\n'
        f"{''.join(sections)}{_events(history.events)}"
        f"<footer>{escape(history.subject.source)} Seed {summary.seed}. Bytes are those of MQTT payloads; the same"
        " numbers are in <code>summary.json</code>.</footer>\n",
    )


def _headline(summary: Summary, subject: Subject) -> str:
    devices = _count(summary.agents, "device")
    if summary.versions == 0:
        return f"{devices} started, but the run ended before they had finished a first version together"
    accuracy = f"<strong>{percent_label(summary.accuracy)} right</strong>"
    owner = "any of its samples leaving it" if summary.agents == 1 else "any of their samples leaving them"
    learned = "had begun to learn to" if summary.stopped_early else "learned to"
    return f"{devices} {learned} {escape(subject.learned)}: {accuracy}, without {owner}"


def _key_figures(summary: Summary, subject: Subject) -> tuple[KeyFigure, ...]:
    return (
        KeyFigure(
            percent_label(summary.accuracy) if summary.versions else "-",
            f"of {summary.held_out_samples:,} unseen {subject.samples} right",
            f"{percent_label(summary.central_accuracy)} if {subject.beside}",
        ),
        _bytes_figure(summary),
        KeyFigure(
            f"{summary.updates_lost} / {summary.updates_duplicated}",
            "updates lost / counted twice",
            f"{summary.updates_applied:,} applied, {summary.updates_buffered:,} waiting for a version,"
            f" {summary.updates_rejected:,} rejected, {summary.updates_pending:,} still safe on a device",
            "good" if summary.updates_lost == summary.updates_duplicated == 0 else "bad",
        ),
        KeyFigure(
            _count(summary.versions, "version"),
            "of the shared model",
            "" if summary.median_staleness is None else f"median staleness of an update: {summary.median_staleness:g}",
        ),
        KeyFigure(
            duration_label(summary.wall_seconds),
            "from start to end",
            f"through the broker {summary.broker}",
        ),
        KeyFigure(
            bytes_label(summary.downlink_bytes),
            "sent to the devices",
            "the task and the versions they fetched",
        ),
        *_privacy_figures(summary),
    )


def _privacy_figures(summary: Summary) -> tuple[KeyFigure, ...]:
    """One for each thing that the task bounds what is told of."""
    figures = (KeyFigure(*words) for words in told_notes(summary.told))
    return (*figures, _masks_figure(summary)) if summary.privacy == "masks" else tuple(figures)


def _masks_figure(summary: Summary) -> KeyFigure:
    note = f"versions are sums of several; mask helpers sent {bytes_label(summary.mask_helper_bytes)} for that"
    return KeyFigure("no update", "seen by itself", f"{note} (docs/secure-aggregation.md)")


def _bytes_figure(summary: Summary) -> KeyFigure:
    if summary.rounds:
        rounds = summary.rounds[-1]
        return KeyFigure(
            bytes_label(summary.message_bytes),
            "in one message of each device",
            f"{rounds.number} rounds of the same layer take {bytes_label(rounds.uplink_bytes)} for"
            f" {percent_label(rounds.accuracy)}",
        )
    return KeyFigure(
        _times_fewer(summary),
        "fewer bytes uploaded",
        f"{bytes_label(summary.uplink_bytes)} instead of {bytes_label(summary.dense_uplink_bytes)} as dense float32",
    )


def _card(figure: KeyFigure) -> str:
    return (
        f'<div><dt>{escape(figure.name)}</dt><dd class="value {figure.style}">{escape(figure.value)}</dd>'
        f"<dd>{escape(figure.note)}</dd></div>\n"
    )


def _section(title: str, content: str, hint: str) -> str:
    """`hint` and `content` are HTML: the caller escapes what comes from a run."""
    if not content:
        return f"<section><h2>{title}</h2><p>Nothing to show: the run ended before this.</p></section>\n"
    return (
        f'<section><h2>{title}</h2><div class="scroll" role="region" aria-label="{title}" tabindex="0">{content}</div>'
        f'<p class="how"><b>How to read this.</b> {hint}</p></section>\n'
    )


def _events(events: Sequence[str]) -> str:
    """What happened to the fleet; nothing where nothing did."""
    if not events:
        return ""
    items = "".join(f"<li>{escape(event)}</li>\n" for event in events)
    return f"<section><h2>What happened to it</h2><ul>\n{items}</ul></section>\n"


def _accuracy_over_time(history: RunHistory) -> str:
    if not history.accuracy:
        return ""
    longest = max(point.seconds for point in history.accuracy)
    unit, name = (60.0, "minutes") if longest > 240 else (1.0, "seconds")
    points = [(point.seconds / unit, point.accuracy) for point in history.accuracy]
    central = history.summary.central_accuracy
    return line_chart(
        f"Accuracy of {len(points)} versions",
        [Line("shared model", points)],
        Axis(f"{name} since the start", begins=0.0),
        ACCURACY_AXIS,
        Reference(central, f"if {history.subject.beside}: {percent_label(central)}"),
    )


def _accuracy_over_bytes(accuracy: Sequence[AccuracyPoint]) -> str:
    # The untrained version has cost 0 bytes, which a logarithmic axis can't show.
    paid = [point for point in accuracy if point.uplink_bytes > 0 and point.dense_uplink_bytes > 0]
    if not paid:
        return ""
    return line_chart(
        f"Accuracy of {len(paid)} versions",
        [
            Line("as sent", [(point.uplink_bytes, point.accuracy) for point in paid]),
            Line("as dense float32", [(point.dense_uplink_bytes, point.accuracy) for point in paid]),
        ],
        Axis("bytes sent by all devices so far (logarithmic)", "bytes", logarithmic=True),
        ACCURACY_AXIS,
    )


def _staleness_histogram(staleness: Sequence[int]) -> str:
    if not staleness:
        return ""
    width = math.ceil((max(staleness) + 1) / MAX_STALENESS_BARS)
    counts = Counter(value // width for value in staleness)
    bars = {}
    for group in range(max(counts) + 1):
        first = group * width
        bars[f"{first}" if width == 1 else f"{first}-{first + width - 1}"] = counts[group]
    return bar_chart(
        f"Staleness of {len(staleness)} updates",
        bars,
        Axis("versions made since the one an update started from"),
        Axis("updates"),
    )


def _device_table(devices: Sequence[DeviceRow]) -> str:
    if not devices:
        return ""
    columns = zip_longest(*(device.label_counts for device in devices), fillvalue=0)
    together = [sum(column) for column in columns]
    names = ("device", "state", "version", "applied", "waiting", "staleness", "sent", "samples", "per second")
    header = strip_header([f"{label}" for label in range(len(together))])
    titles = "".join(f"<th>{name}</th>" for name in names)
    sums = Totals.of(devices)
    totals = cells(
        *("all together", "", "", f"{sums.applied:,}", f"{sums.buffered:,}", ""),
        bytes_label(sums.uplink_bytes),
        f"{sums.samples:,} of {sums.samples_expected:,}",
        "",
    )
    return (
        f"<table><thead><tr>{titles}<th>{header}</th></tr></thead>\n"
        f"<tbody>{''.join(map(_device_row, devices))}</tbody>\n"
        f"<tfoot><tr>{totals}<td>{_label_strip('all together', together)}</td></tr></tfoot></table>"
    )


def _device_row(device: DeviceRow) -> str:
    row = cells(
        device.name,
        device.state,
        f"{device.version}",
        f"{device.applied:,}",
        f"{device.buffered:,}",
        "-" if device.staleness is None else f"{device.staleness:.1f}",
        bytes_label(device.uplink_bytes),
        f"{device.samples:,} of {device.samples_expected:,}",
        f"{device.samples_per_second:.1f}",
    )
    return f"<tr>{row}<td>{_label_strip(device.name, device.label_counts)}</td></tr>\n"


def _label_strip(name: str, counts: Sequence[int]) -> str:
    titles = [f"{name}, digit {label}: {_count(count, 'sample')}" for label, count in enumerate(counts)]
    return strip(counts, titles, f"Samples per digit: {name}")


def _times_fewer(summary: Summary) -> str:
    if not summary.uplink_bytes or not summary.dense_uplink_bytes:
        return "-"
    ratio = summary.dense_uplink_bytes / summary.uplink_bytes
    return f"{ratio:.0f}x" if ratio >= 10 else f"{ratio:.1f}x"


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
