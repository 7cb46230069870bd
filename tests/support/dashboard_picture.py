"""The picture in docs/dashboard.md, of a demo that has ended: `python -m tests.support.dashboard_picture`.

    edgeflock demo --agents 8 --seed 0 --out FOLDER
    python -m tests.support.dashboard_picture FOLDER docs/dashboard.png

Versions are evaluated on the samples that this demo has held out, as `[[evaluations]]` would have them.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.support.browser import Looker, chromium
from tests.support.process import environment
from workbench.data.digits import split_digits

EVALUATED_VERSIONS = 20
WIDTH, HEIGHT = 1280, 960


def main() -> None:
    """Evaluate, show, and take the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="the folder that the demo has written")
    parser.add_argument("picture", type=Path, help="the .png to write")
    parser.add_argument("--agents", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    held_out = split_digits(options.agents, np.random.default_rng(options.seed)).held_out
    file = options.demo / "held-out.npz"
    np.savez(file, inputs=held_out.inputs, labels=held_out.labels)
    configuration = options.demo / "coordinator.toml"
    (task,) = json.loads(_told(configuration, "tasks", "list", "--json"))
    newest = task["version"]
    for version in range(0, newest + 1, max(1, newest // EVALUATED_VERSIONS)):
        _told(configuration, "tasks", "evaluate", "digits", "--version", str(version), "--data", str(file))
    command = [sys.executable, "-m", "workbench.program", "dashboard", "--config", str(configuration)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as dashboard:
        assert dashboard.stdout is not None
        address = dashboard.stdout.readline().split()[0]
        with chromium() as browser:
            looker = Looker(browser, address, viewport={"width": WIDTH, "height": HEIGHT})
            looker.open("tasks/digits", "Task digits")
            looker.page.locator(".uplot").last.wait_for()
            looker.page.screenshot(path=options.picture)
        dashboard.terminate()


def _told(configuration: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "broker_coordinator.cli", *arguments, "--config", str(configuration)]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment()).stdout


if __name__ == "__main__":
    main()
