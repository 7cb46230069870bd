"""The command line of `edge-agent samples`, which every start of the agent reads: nothing of a database."""

import argparse
from pathlib import Path

from edge_agent.sources.sample_commands import HIGHEST_NUMBER
from fleet_host.command_line import Verbs, add_verb, whole_number

_SAMPLE_NUMBER = whole_number(1, HIGHEST_NUMBER)


def add_samples_verb(verbs: Verbs, *parents: argparse.ArgumentParser) -> None:
    """Add it, with its own verbs."""
    sentence = "Show, export, correct or forget the samples that are stored on this device."
    what = add_verb(verbs, "samples", sentence).add_subparsers(dest="what", required=True, metavar="WHAT")
    stats = add_verb(what, "stats", "Show how many samples of each task are stored.", *parents)
    stats.add_argument("--json", action="store_true", help="one JSON object")
    export = add_verb(what, "export", "Write a task's samples to a csv file on this device.", *parents)
    export.add_argument("file", type=Path, metavar="FILE", help="the file to write, readable by you alone")
    export.add_argument("--task", metavar="NAME", help="the task (the first in agent.toml)")
    export.add_argument("--numbers", action="store_true", help="with each sample's number in front")
    correct = add_verb(what, "correct", "Give a stored sample its right label; it counts as new.", *parents)
    correct.add_argument("sample", type=_SAMPLE_NUMBER, metavar="NUMBER", help="as `export --numbers` writes it")
    correct.add_argument("label", metavar="LABEL", help="as JSON, as the sample socket takes it")
    correct.add_argument("--task", metavar="NAME", help="the task (the first in agent.toml)")
    forget = add_verb(what, "forget", "Delete samples, all or some.", *parents)
    forget.add_argument("--yes", action="store_true", required=True, help="nothing else has them")
    forget.add_argument("--task", metavar="NAME", help="those of one task (of all)")
    forget.add_argument(
        "--sample", type=_SAMPLE_NUMBER, action="append", metavar="NUMBER", help="this one; several times for more"
    )
