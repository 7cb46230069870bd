"""A report of what was synthesised, to look at and to listen to: `report.html`, with a few samples of each class."""

import io
import wave
from collections import Counter
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.pictures import pixels_of, png
from fleet_host.new_files import replace_file
from fleet_protocol.task_description import TaskDescription
from prompt_synthesis.data_folder import DataFolder, Part

REPORT_FILE: Final = "report.html"
EXAMPLES: Final = 8
"""Of each class."""
MOST_CLASSES: Final = 100
SMALLEST_SOUND: Final = 2_000
"""Values: what has fewer in one row is no sound."""

STYLE: Final = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em; max-width: 70em }
table { border-collapse: collapse } td, th { padding: .2em .8em .2em 0; text-align: left; vertical-align: top }
img { image-rendering: pixelated; width: 56px; margin: 1px } audio { height: 28px; width: 200px }
"""

PAGE: Final = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{task}: synthetic data</title>
<style>{style}</style></head><body><h1>{title}</h1>
<p>{made} samples by the generator {generator}, seed {seed}, in {parts} parts.</p>
<table><tr><th>class<th>samples<th>styles<th>examples</tr>{rows}</table>{failures}</body></html>
"""


@dataclass(slots=True)
class _ClassRow:
    """What is shown of one class."""

    word: str
    made: int = 0
    styles: set[str] = field(default_factory=set)
    examples: list[str] = field(default_factory=list)

    def html(self) -> str:
        styles = "<br>".join(sorted(self.styles)[:EXAMPLES])
        examples = "".join(self.examples) or ("features, which show nothing" if self.made else "none")
        return f"<tr><td>{escape(self.word)}<td>{self.made}<td>{styles}<td>{examples}</tr>"


def write_report(data: DataFolder, task: TaskDescription) -> Path:
    """Write the report and the sounds or pictures in it, into the folder of the data; returns its file.

    Raises:
        OSError: it can't be written.
    """
    classes = min(task.label.classes, MOST_CLASSES)
    names = task.prompts.names if task.prompts is not None else []
    rows = {label: _ClassRow(names[label] if label < len(names) else str(label)) for label in range(classes)}
    of_class = Counter(order.label for order in data.plan.orders)
    failures = []
    for part in data.parts():
        order, note = part.order, part.note()
        if note.missing:
            why = note.failure or f"{note.missing} of {order.count} samples are missing"
            failures.append(f"<li>{escape(order.word)} ({escape(order.style) or 'any'}): {escape(why)}</li>")
        if (row := rows.get(order.label)) is None:
            continue
        row.word = order.word
        row.made += note.made
        row.styles.add(escape(order.style) or "any")
        most = max(1, EXAMPLES // of_class[order.label])
        for place in range(min(note.made, most, EXAMPLES - len(row.examples))):
            row.examples.append(_example(data.folder, len(row.examples), part, place, task))
    page = PAGE.format(
        task=escape(task.task),
        title=escape(task.title),
        style=STYLE,
        made=sum(row.made for row in rows.values()),
        generator=escape(data.plan.generator),
        seed=data.plan.seed,
        parts=len(data.plan.orders),
        rows="".join(row.html() for row in rows.values()),
        failures=f"<h2>Not made</h2><ul>{''.join(failures)}</ul>" if failures else "",
    )
    file = data.folder / REPORT_FILE
    replace_file(file, page.encode())
    return file


def _example(folder: Path, number: int, part: Part, place: int, task: TaskDescription) -> str:
    """One sample of a part, the class's example of that number: a picture, a sound, or nothing where it is neither."""
    data, label = part.data, part.order.label
    if data is None or (data.features and task.backbone is not None):
        return ""
    values, title = np.squeeze(data.inputs[place]), escape(data.origins[place], quote=True)
    if values.ndim == 1 and values.size >= SMALLEST_SOUND and task.prompts is not None:
        name = f"class-{label:03}-{number}.wav"
        replace_file(folder / name, _sound(values, task.prompts.sample_rate_hz))
        return f'<audio controls preload="none" title="{title}" src="{name}"></audio>'
    if values.ndim == 1 and (side := round(values.size**0.5)) ** 2 == values.size:
        values = values.reshape(side, side)
    if values.ndim != 2 and not (values.ndim == 3 and len(values) == 3):
        return ""
    name = f"class-{label:03}-{number}.png"
    replace_file(folder / name, png(pixels_of(values, task.input)))
    return f'<img title="{title}" src="{name}" alt="">'


def _sound(values: NDArray[np.float32], rate_hz: int) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes((np.clip(values, -1, 1) * 32_767).astype("<i2").tobytes())
    return out.getvalue()
