"""Does each model of the zoo train exactly, and how fast?

`python -m benchmarks.model_zoo [NAME ...]` prints a line for each model as it is measured, and one JSON object as its
last line. What it says of a model is in `measure.Measured`. With `--out FILE` each line is appended to that file, and
models that are in it are not measured again.
"""

import argparse
import statistics
import sys
from pathlib import Path

import msgspec
import torch

from benchmarks.model_zoo.measure import Measured, measure
from benchmarks.model_zoo.models import MODELS
from benchmarks.model_zoo.results import Line, add_result, read_results
from benchmarks.step_contest import ORT_PYTHON
from fleet_protocol.errors import ConfigurationError

ROUNDS = 7
CLOSE = 1e-5
"""The largest difference of any weight that needs no explanation."""
ROUNDING_LEEWAY = 10
"""A larger one is rounding that the model amplifies if rounding moves torch's own run by as much within this factor:
where an activation lies within rounding of its kink, one run may cross it and another not.
"""


def summary(measured: dict[str, Measured]) -> dict[str, object]:
    """What the zoo comes to, and every model's own figures."""
    exported = {name: each for name, each in measured.items() if not each.refusal}
    silent = [
        name
        for name, each in exported.items()
        if any(way and way.from_torch > max(CLOSE, ROUNDING_LEEWAY * way.rounding) for way in each.distances.values())
    ]
    return {
        "models": len(measured),
        "refused": len(measured) - len(exported),
        "not_explained_by_rounding": silent,
        "all_deterministic": all(each.deterministic for each in exported.values()),
        "largest_export_seconds": max((each.export_seconds for each in exported.values()), default=None),
        "slower_than_torch": [name for name, each in exported.items() if each.times_torch < 1],
        "median_times_torch": statistics.median([each.times_torch for each in exported.values()] or [0]),
        "each": measured,
    }


def main() -> None:
    """Measure the models that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model_zoo", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*MODELS, []], metavar="NAME", help=", ".join(MODELS))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of 50 steps each; times are medians over them")
    parser.add_argument("--ort-python", type=Path, default=ORT_PYTHON, metavar="PYTHON")
    parser.add_argument("--out", type=Path, metavar="FILE", help="that lines are appended to, and a run goes on from")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ort_python = arguments.ort_python if arguments.ort_python.exists() else None
    try:
        known = read_results(arguments.out) if arguments.out else {}
    except (ConfigurationError, OSError) as error:
        parser.error(str(error))
    measured = {}
    for name in arguments.names or MODELS:
        if name not in known:
            known[name] = measure(MODELS[name], ort_python, arguments.rounds)
            if arguments.out:
                add_result(arguments.out, Line(name, known[name]))
        measured[name] = known[name]
        print(name, msgspec.json.encode(measured[name]).decode(), file=sys.stderr, flush=True)
    print(msgspec.json.encode(summary(measured)).decode())


if __name__ == "__main__":
    main()
