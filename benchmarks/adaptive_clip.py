"""What a clip that follows a quantile of the norms is worth: a fixed clip that is too small, right or too large, and
one that follows, from the same three.

    python -m benchmarks.adaptive_clip --data ../shared/data [--epsilon 8] [--clips 0.05 0.5 5] [--seeds 2]

Fleet, plan and learning rate are those of `benchmarks.device_privacy_utility`; quantile and rate are the task's
defaults, those of Andrew et al. 2021. No data chose them. All rows keep the same epsilon.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.device_privacy_utility import BETWEEN, BUFFER, CLIENTS, VERSIONS, measured
from benchmarks.private_fleets import RECIPE, mnist_split
from fleet_protocol.privacy.adaptive_clip import AdaptiveClip
from workbench.export.bundle_writer import export_bundle

AT_MOST = 50.0
"""Ten times the largest clip below."""
CLIPS = (0.05, 0.5, 5.0)


def row_of(clip: float, found: Sequence[dict[str, Any]], *, follows: bool) -> dict[str, Any]:
    """Of the runs with one clip, one for each seed."""
    right = [each["right"] for each in found]
    row = {"clip": clip, "follows": follows, "right": fmean(right), "of_seeds": right}
    return row | ({"clips": [each["clips"] for each in found]} if follows else {})


def main() -> None:
    """Print each run as it is found, and all rows as one JSON object at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--clips", type=float, nargs="*", default=list(CLIPS))
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    split = mnist_split(options.data)
    ways = [(clip, follows) for clip in options.clips for follows in (False, True)]
    found: dict[tuple[float, bool], list[dict[str, Any]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        export_bundle(RECIPE, Path(folder))
        for seed in range(1, options.seeds + 1):
            for clip, follows in ways:
                adaptive = AdaptiveClip(AT_MOST) if follows else None
                run = measured(Path(folder), options.epsilon, split, seed, clip=clip, adaptive=adaptive)
                found[clip, follows].append(run)
    rows = [row_of(clip, found[clip, follows], follows=follows) for clip, follows in ways]
    settings = {"devices": CLIENTS, "versions": VERSIONS, "buffer_size": BUFFER, "versions_between": BETWEEN}
    print(json.dumps({**settings, "epsilon": options.epsilon, "delta": 1e-5, "rows": rows}))


if __name__ == "__main__":
    main()
