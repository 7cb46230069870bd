"""The part of `report.html` on a head that was solved from one message of each device, beside rounds of it."""

from html import escape

from workbench.report.helped_devices import cells
from workbench.report.history import RoundPoint, Summary
from workbench.report.labels import bytes_label, percent_label
from workbench.report.plots import Axis, Line, line_chart

SHOWN_ROUNDS = (1, 2, 5, 10, 20)
BESIDE_ROUNDS_HINT = """The single dot is what really travelled: each device has said once how the features of its
samples are distributed, and the last layer follows from that by arithmetic. The curve is the same layer trained in
rounds, of which each takes an update of every device: computed on this machine after the run, on the same samples,
with the shipped training, packing and averaging, and the learning rate of the recipe. Bytes are those of signed
messages; what devices download in each round is not counted. <b>Further left is cheaper</b>; the axis is
logarithmic."""

SPOKEN_HINT = """Every row is a device with one speaker, every cell a word: the stronger the colour, the more recordings
of that word the device has. Recordings stay where they are: only the means of their features travel."""
SOLVED_HINT = """Every dot is a version of the model that all devices share, tested on samples that no device ever had:
the last one is of all devices' messages. The dashed line is what one computer reaches that was given everybody's
samples, and trained the same layer on them."""


def beside_rounds(summary: Summary) -> str:
    """A plot of accuracy over bytes, and a table; empty where no head was solved."""
    if not summary.rounds or not summary.message_bytes:
        return ""
    return _plot(summary) + _table(summary)


def _plot(summary: Summary) -> str:
    trained = [(each.uplink_bytes, each.accuracy) for each in summary.rounds]
    return line_chart(
        f"Accuracy of one message, and of {len(trained)} rounds",
        [Line("one message", [(summary.message_bytes, summary.accuracy)]), Line("rounds", trained)],
        Axis("bytes sent by all devices (logarithmic)", "bytes", logarithmic=True),
        Axis("right", "percent"),
    )


def _table(summary: Summary) -> str:
    shown: list[RoundPoint] = [each for each in summary.rounds if each.number in SHOWN_ROUNDS]
    rows = [
        cells(
            "one message of each device",
            f"{summary.updates_applied}",
            bytes_label(summary.message_bytes),
            percent_label(summary.accuracy),
        )
    ]
    rows += [
        cells(
            "one round" if each.number == 1 else f"{each.number} rounds",
            f"{each.number * summary.agents}",
            bytes_label(each.uplink_bytes),
            percent_label(each.accuracy),
        )
        for each in shown
    ]
    titles = "".join(f"<th>{escape(title)}</th>" for title in ("", "messages", "bytes", "right"))
    body = "".join(f"<tr>{row}</tr>\n" for row in rows)
    return f"<table><thead><tr>{titles}</tr></thead>\n<tbody>{body}</tbody></table>"
