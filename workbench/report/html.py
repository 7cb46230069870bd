"""`report.html`: a demo run as one page, without scripts or network, in plain words."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import zip_longest

from workbench.report import svg_plots
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
from workbench.report.privacy_told import told_notes
from workbench.report.svg_plots import (
    Axis,
    Bar,
    Point,
    Reference,
    Series,
)

MAX_TICKS = 8
MAX_STALENESS_BARS = 25
"""Above this many values the histogram puts several into one bar."""
ACCURACY_AXIS = Axis("read correctly", svg_plots.nice_ticks(0, 1, most=6), lambda part: f"{100 * part:.0f} %")

STYLE = """
:root { color-scheme: light dark;
  --page: #f6f5f1; --sheet: #ffffff; --ink: #1d2329; --soft: #5d6772; --rule: #e1e2e0;
  --sent: #0f766e; --dense: #b45309; --good: #15803d; --bad: #b91c1c; --cell: #ecedeb; }
@media (prefers-color-scheme: dark) { :root {
  --page: #101418; --sheet: #181d23; --ink: #e7eaed; --soft: #9aa5b1; --rule: #2c343c;
  --sent: #2dd4bf; --dense: #f5a524; --good: #4ade80; --bad: #f87171; --cell: #262d35; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1020px; margin: 0 auto; padding: 32px 20px 24px; }
.kicker, footer { color: var(--soft); font-size: 14px; margin: 0; }
h1 { font-size: 28px; line-height: 1.25; margin: 4px 0 20px; text-wrap: balance; }
h1 strong { color: var(--sent); white-space: nowrap; }
h2 { font-size: 19px; margin: 0 0 8px; } .notice { border-left: 4px solid var(--dense); padding-left: 12px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(270px, 1fr));
  gap: 12px; margin: 0 0 12px; }
.figures div, section { background: var(--sheet); border: 1px solid var(--rule); border-radius: 10px; }
.figures div { padding: 12px 16px; display: flex; flex-direction: column; }
dt { order: 2; font-weight: 600; }
dd { order: 3; margin: 0; color: var(--soft); font-size: 14px; overflow-wrap: anywhere; }
dd.value { order: 1; color: var(--ink); font-size: 28px; line-height: 1.2; font-weight: 650; }
dd.good { color: var(--good); } dd.bad { color: var(--bad); }
section { padding: 16px 20px; margin: 0 0 12px; }
section p:last-child { margin-bottom: 0; }
.how { color: var(--soft); font-size: 14px; margin: 8px 0 0; } .how b { color: var(--ink); }
figure { margin: 0; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 3px 6px; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; vertical-align: bottom; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
th:last-child, td:last-child { text-align: left; padding-left: 14px; }
h3 { font-size: 16px; margin: 8px 0 0; } img { image-rendering: pixelated; max-width: 100%; }
td svg, th svg { display: block; margin: 2px 0; } tfoot td { border: 0; font-weight: 600; }
"""

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
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # An empty icon of its own, or a browser would ask the server for one.
        '<link rel="icon" href="data:,">\n'
        f"<title>edgeflock demo: {_count(summary.agents, 'device')}</title>\n"
        f"<style>{STYLE}{svg_plots.PLOT_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<p class="kicker">edgeflock demo</p>\n<h1>{_headline(summary, history.subject)}</h1>\n'
        f"{STOPPED_EARLY.format(escape(history.failure) or 'Ctrl-C') if summary.stopped_early else ''}"
        f'<dl class="figures">\n{"".join(map(_card, _key_figures(summary, history.subject)))}</dl>\n'
        f"{''.join(sections)}{_events(history.events)}"
        f"<footer>{escape(history.subject.source)} Seed {summary.seed}. Bytes are those of MQTT payloads; the same"
        " numbers are in <code>summary.json</code>.</footer>\n</main>\n</body>\n</html>\n"
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
        f"<section><h2>{title}</h2><figure>{content}</figure>"
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
    points = [Point(point.seconds / unit, point.accuracy, _title(point)) for point in history.accuracy]
    central = history.summary.central_accuracy
    return svg_plots.line_plot(
        (Series("shared model", "sent", points),),
        Axis(f"{name} since the start", svg_plots.nice_ticks(0, longest / unit, most=MAX_TICKS), "{:g}".format),
        ACCURACY_AXIS,
        reference=Reference(central, f"if {history.subject.beside}: {percent_label(central)}"),
        about=f"Accuracy of {len(points)} versions over {name}",
    )


def _accuracy_over_bytes(accuracy: Sequence[AccuracyPoint]) -> str:
    # The untrained version has cost 0 bytes, which a logarithmic axis can't show.
    paid = [point for point in accuracy if point.uplink_bytes > 0 and point.dense_uplink_bytes > 0]
    if not paid:
        return ""
    sent = [Point(point.uplink_bytes, point.accuracy, _title(point)) for point in paid]
    dense = [
        Point(point.dense_uplink_bytes, point.accuracy, f"version {point.version} as dense float32") for point in paid
    ]
    costs = [point.x for point in (*sent, *dense)]
    return svg_plots.line_plot(
        (Series("as sent", "sent", sent), Series("as dense float32", "dense", dense)),
        Axis(
            "bytes sent by all devices so far (logarithmic)",
            svg_plots.log_ticks(min(costs), max(costs), most=MAX_TICKS),
            bytes_label,
            logarithmic=True,
        ),
        ACCURACY_AXIS,
        reference=None,
        about=f"Accuracy of {len(paid)} versions over the bytes sent for them",
    )


def _title(point: AccuracyPoint) -> str:
    return (
        f"version {point.version}: {percent_label(point.accuracy)} after {duration_label(point.seconds)}"
        f" and {bytes_label(point.uplink_bytes)}"
    )


def _staleness_histogram(staleness: Sequence[int]) -> str:
    if not staleness:
        return ""
    width = math.ceil((max(staleness) + 1) / MAX_STALENESS_BARS)
    counts = Counter(value // width for value in staleness)
    bars = []
    for group in range(max(counts) + 1):
        first = group * width
        label = f"{first}" if width == 1 else f"{first}-{first + width - 1}"
        share = counts[group] / len(staleness)
        bars.append(Bar(label, counts[group], f"staleness {label}: {counts[group]} updates ({share:.0%})"))
    ticks = [tick for tick in svg_plots.nice_ticks(0, max(counts.values()), most=6) if tick.is_integer()]
    return svg_plots.bar_plot(
        bars,
        Axis("updates", ticks, "{:,.0f}".format),
        x_label="versions made since the one an update started from",
        about=f"Staleness of {len(staleness)} updates",
    )


def _device_table(devices: Sequence[DeviceRow]) -> str:
    if not devices:
        return ""
    columns = zip_longest(*(device.label_counts for device in devices), fillvalue=0)
    together = [sum(column) for column in columns]
    names = ("device", "state", "version", "applied", "waiting", "staleness", "sent", "samples", "per second")
    header = svg_plots.heat_header([f"{label}" for label in range(len(together))], about="digits")
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
    return svg_plots.heat_strip(counts, titles, about=f"Samples per digit: {name}")


def _times_fewer(summary: Summary) -> str:
    if not summary.uplink_bytes or not summary.dense_uplink_bytes:
        return "-"
    ratio = summary.dense_uplink_bytes / summary.uplink_bytes
    return f"{ratio:.0f}x" if ratio >= 10 else f"{ratio:.1f}x"


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
