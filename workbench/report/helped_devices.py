"""The part of `report.html` on devices that leave blocks of the model to a helper."""

from html import escape

from workbench.report.history import RunHistory
from workbench.report.labels import bytes_label

RELAYED_HINT = """A device with a cut trains the first and the last blocks of the model, and a helper those between.
What they send one another passes the relay encrypted from end to end: what blocks make of samples, and gradients; <b>no
sample and no label</b>. It is several times what updates take, and it stays on the local network where the broker does.
A device without a cut trains the whole model by itself."""


def relayed_table(history: RunHistory) -> str:
    """A row for each device and each helper, with what each sent through the relay and got from it."""
    titles = ("", "trains", "updates in versions", "sent to the relay", "got from it")
    rows = [
        cells(
            device.name,
            f"blocks of cut {device.cut}" if device.cut else "the whole model",
            f"{device.applied:,}",
            bytes_label(device.relayed_up_bytes),
            bytes_label(device.relayed_down_bytes),
        )
        for device in history.devices
    ]
    rows += [
        cells(
            helper.name,
            "the other blocks, for devices with a cut",
            f"{helper.applied:,}",
            bytes_label(helper.relayed_up_bytes),
            bytes_label(helper.relayed_down_bytes),
        )
        for helper in history.helpers
    ]
    header = "".join(f"<th>{title}</th>" for title in titles)
    body = "".join(f"<tr>{row}</tr>\n" for row in rows)
    return f"<table><thead><tr>{header}</tr></thead>\n<tbody>{body}</tbody></table>"


def cells(*texts: str) -> str:
    """A cell of a table for each text."""
    return "".join(f"<td>{escape(text)}</td>" for text in texts)
