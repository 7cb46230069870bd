"""A fleet's month in virtual time, for many seeds: `python -m tests.soak.month --seeds 20`; a minute or two each.

Says how each month went on standard error; the last line of the output is one JSON array. It ends with an
AssertionError where something does not hold that must (docs/durability.md).
"""

import argparse
import sys
import tempfile
from pathlib import Path

import msgspec

from tests.month.month import Month, Summary


def live(seed: int) -> Summary:
    """One month, whose memory is measured."""
    with tempfile.TemporaryDirectory() as folder:
        return Month(Path(folder), seed, measures_memory=True).run()


def main() -> None:
    """Raises AssertionError where something is lost, counts twice, stops or grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="so many months")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    arguments = parser.parse_args()
    summaries = []
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        print(f"seed {seed}", file=sys.stderr, flush=True)
        summaries.append(live(seed))
        print(summaries[-1], file=sys.stderr, flush=True)
    print(msgspec.json.encode(summaries).decode())


if __name__ == "__main__":
    main()
