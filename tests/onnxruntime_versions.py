"""The tests of hostile graphs on releases of onnxruntime: python -m tests.onnxruntime_versions 1.24.4 1.28.0 1.32.0"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = ("tests/unit/test_graph_admission.py", "tests/integration/test_confinement.py")


def passes(version: str) -> bool:
    """Whether the tests pass with this release in front of the installed one."""
    with tempfile.TemporaryDirectory() as folder:
        install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, f"onnxruntime=={version}"]
        subprocess.run([sys.executable, *install], check=True)
        environment = os.environ | {"PYTHONPATH": folder}
        tests = [sys.executable, "-m", "pytest", "-q", *TESTS]
        return subprocess.run(tests, check=False, env=environment, cwd=Path(__file__).parents[1]).returncode == 0


if __name__ == "__main__":
    failed = [version for version in sys.argv[1:] if not passes(version)]
    sys.exit(f"failed with {', '.join(failed)}" if failed else 0)
