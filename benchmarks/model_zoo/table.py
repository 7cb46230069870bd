"""The zoo's table in Markdown, from what it wrote to `--out`: `python -m benchmarks.model_zoo.table FILE`."""

import sys
from pathlib import Path

from benchmarks.model_zoo.exactness import Distance
from benchmarks.model_zoo.measure import Measured
from benchmarks.model_zoo.models import MODELS
from benchmarks.model_zoo.results import read_results

HEADINGS = (
    "model",
    "exported",
    "torch eager",
    "times torch",
    "ORT-training",
    "full batch",
    "padded",
    "one row",
    "export, CPU seconds",
)


def table(measured: dict[str, Measured]) -> str:
    """Markdown, in the order of the zoo, of the models that were measured."""
    rows = [HEADINGS, ("---",) * len(HEADINGS)]
    rows += [row(name, measured[name]) for name in MODELS if name in measured]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def row(name: str, found: Measured) -> tuple[str, ...]:
    """Microseconds a step, then the largest differences from torch."""
    if found.refusal:
        return (name, found.refusal, *[""] * (len(HEADINGS) - 2))
    other = "can't" if found.ort_training_us is None else f"{found.ort_training_us:,.0f}"
    ways = [_difference(found.distances[way]) for way in ("full", "padded", "one_row")]
    times = (f"{found.edgeflock_us:,.0f}", f"{found.torch_us:,.0f}", f"{found.times_torch:.2f}")
    return (name, *times, other, *ways, f"{found.export_seconds:.1f}")


def _difference(way: Distance | None) -> str:
    return "torch refuses" if way is None else f"{way.from_torch:.1e}"


if __name__ == "__main__":
    print(table(read_results(Path(sys.argv[1]))))
