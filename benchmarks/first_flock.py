"""The demo's figures over several seeds: accuracy against pooled training, bytes, losses.

python -m benchmarks.first_flock [--seeds 5]
"""

import argparse
import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from workbench.demo.run import DemoOptions, run_demo

AGENTS = 8
BROKER = "auto"


def measure(seed: int) -> dict[str, Any]:
    """Run the demo once and return its summary, with the gap to pooled training and the ratio of bytes."""
    with tempfile.TemporaryDirectory() as folder:
        options = DemoOptions(AGENTS, seed, Path(folder), BROKER)
        summary = asyncio.run(run_demo(options, lambda _: None)).summary
    return {
        **msgspec.to_builtins(summary),
        "accuracy_gap": summary.central_accuracy - summary.accuracy,
        "uplink_ratio": summary.dense_uplink_bytes / summary.uplink_bytes,
    }


def main() -> None:
    """Print one line per run, then everything as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    runs = []
    for seed in range(parser.parse_args().seeds):
        run = measure(seed)
        runs.append(run)
        print(f"seed {seed}: accuracy {run['accuracy']:.4f}, pooled {run['central_accuracy']:.4f}")
    worst = {
        "accuracy_gap": max(run["accuracy_gap"] for run in runs),
        "accuracy": min(run["accuracy"] for run in runs),
        "uplink_ratio": min(run["uplink_ratio"] for run in runs),
        "updates_lost": max(run["updates_lost"] for run in runs),
        "updates_duplicated": max(run["updates_duplicated"] for run in runs),
        "wall_seconds": max(run["wall_seconds"] for run in runs),
    }
    print(json.dumps({"worst": worst, "runs": runs}))


if __name__ == "__main__":
    main()
