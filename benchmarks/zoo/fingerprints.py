"""What tells results apart that must not be mixed: hashes of the texts that they follow from."""

import hashlib
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRODUCT = ("broker_coordinator", "bundle_runtime", "edge_agent", "fleet_protocol", "workbench")
DATA = ("benchmarks/zoo/samples", "benchmarks/zoo/tasks.py")
POOLED = (*DATA, "benchmarks/zoo/pooled.py")
"""What pooled training follows from, besides a bundle."""
CASES = (*PRODUCT, *POOLED, "benchmarks/zoo/case.py", "benchmarks/zoo/partitions.py", "benchmarks/zoo/scoring.py")
"""What a case follows from."""
RULE_SOURCES = ("benchmarks/zoo/rules.py",)
"""And one without a rule."""


def fingerprint(texts: Iterable[str]) -> str:
    """16 hex digits that change with any of the texts."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(len(text).to_bytes(8) + text.encode())
    return digest.hexdigest()[:16]


def sources(*paths: str) -> list[str]:
    """Python files of this project: those named, and all in the folders named."""
    found = ((ROOT / path) for path in paths)
    return [file.read_text() for path in found for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]


def origin() -> str:
    """Today's date and the commit, for people."""
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return f"{datetime.now(UTC):%Y-%m-%d} {git.stdout.strip() or 'of no commit'}"
