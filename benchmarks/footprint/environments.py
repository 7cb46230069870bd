"""Virtual environments that a benchmark makes, kept in the cache folder, and what they take on the disk."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.footprint.processes import MB

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edgeflock-benchmarks"
TOOLS = ("pip", "setuptools", "wheel", "pip-*", "setuptools-*", "wheel-*", "_distutils_hack")
"""What every environment has, and no device needs."""


def environment_with(name: str, *packages: str) -> Path:
    """The Python of an environment that has these packages, made where it is not there yet."""
    folder = CACHE / name
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        ready.touch()
    return python


def installed_mb(python: Path) -> float:
    """What the packages of its environment take, without pip's own and compiled Python."""
    (site,) = (python.parents[1] / "lib").glob("python3.*/site-packages")
    tools = {path for pattern in TOOLS for path in site.glob(pattern)}
    files = (file for file in site.rglob("*") if file.is_file() and not file.is_symlink() and file.suffix != ".pyc")
    return sum(file.stat().st_size for file in files if not tools & {file, *file.parents}) / MB
