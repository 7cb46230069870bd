"""Cards as `edgeflock flash` makes them, with this tree's own wheel on them."""

import subprocess
import sys
from pathlib import Path

from tests.support.process import TREE, environment


def wheel_of_tree(folder: Path) -> Path:
    """This tree's wheel, made in a folder."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--wheel-dir", folder, TREE], check=True, capture_output=True)
    (wheel,) = folder.glob("edgeflock-*.whl")
    return wheel


def flash_offline(**options: str | Path) -> str:
    """What `edgeflock flash --offline` says with these options, which has to succeed."""
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-P", "-m", "workbench.cli", "flash", "--offline", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout
