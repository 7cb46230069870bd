"""The part of `report.html` on pictures that a fleet's generators draw."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape

from workbench.report.history import DrawnPictures, DrawnVariety

DRAWN_HINT = """Every column is a class, every picture drawn for this page by the model that the cluster's devices
have: none is a device's. Nobody said which devices are alike: the coordinator found it by what the helper sees of them,
and the model of each cluster goes its own way from there. A device that lacks a class has it drawn by what the others
of its cluster know. Variety is how much pictures of one class differ, from 0; half of the greatest or less, and the
generator draws one picture again and again."""
FORMED_HINT = """Every column is a class, every row a version, the first at the top: the same random numbers drawn by
each, so that one sees a picture form. Rows from before the clusters were found are of the model that all devices
shared."""
DRAWN_TIME_HINT = """Every dot is a version. A classifier that has seen nothing but drawn pictures reads real ones that
no device ever had: what is blurred, missing or of another class, it gets wrong. The dashed line is the same classifier
after the devices' own pictures. <b>The closer the curve comes to it, the more a drawn picture is worth a real
one.</b>"""
DRAWN_DEVICES_HINT = """Every row is a device, every cell a class from 0 to 9, or A to J: the stronger the colour, the
more pictures of it the device has. <b>An empty cell is a class that it never saw.</b> Pictures stay where they are."""


def pictures_table(drawn: Sequence[DrawnPictures]) -> str:
    """The pictures of each cluster, under its name and its devices; empty where nothing was drawn."""
    return "".join(
        f"<h3>{escape(each.title)}</h3><p>{escape(', '.join(each.devices))}; version {each.version}"
        f"{_words(each.variety)}</p>"
        f"{_image(each.grid, each.title)}\n"
        for each in drawn
    )


def formed_table(drawn: Sequence[DrawnPictures]) -> str:
    """How the pictures of each cluster came about."""
    return "".join(
        f"<h3>{escape(each.title)}</h3><p>versions {', '.join(map(str, each.formed_versions))}</p>"
        f"{_image(each.formed, f'{each.title}, version by version')}\n"
        for each in drawn
        if each.formed_versions
    )


def _words(variety: DrawnVariety | None) -> str:
    if variety is None:
        return ""
    alike = ": <b>pictures of a class have become alike</b>" if variety.is_narrow else ""
    return f"; variety {variety.last:.2f}, the greatest {variety.greatest:.2f} in version {variety.greatest_in}{alike}"


def _image(png: bytes, words: str) -> str:
    if not png:
        return "<p>It draws nothing that is a finite number.</p>"
    return f'<img src="data:image/png;base64,{b64encode(png).decode()}" alt="{escape(words)}">'
