"""What an agent costs a device, beside Flower's SuperNode in the same run.

python -m benchmarks.agent_footprint [--seconds 60] [--trainings 100]

The agent is the shipped one, on a real Mosquitto at a keepalive of 300 seconds; Flower comes into an environment that
is kept in the cache folder. The last line is one JSON object.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.footprint import edgeflock_side, flower_side

DIGITS = 3


def flat(found: msgspec.Struct) -> dict[str, Any]:
    """Its figures, those of `idle` among them, in three digits after the point."""
    values = msgspec.to_builtins(found)
    values = values.pop("idle") | values
    return {name: round(value, DIGITS) for name, value in values.items()}


def main() -> None:
    """Measure both, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to look at an idle process")
    parser.add_argument("--trainings", type=int, default=100, help="with the libraries loaded")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ours, peer = Path(folder) / "edgeflock", Path(folder) / "flower"
        ours.mkdir()
        peer.mkdir()
        found = {
            "edgeflock": flat(edgeflock_side.measure(ours, options.seconds, options.trainings)),
            "flower_supernode": flat(flower_side.measure(peer, options.seconds)),
        }
    print(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main()
