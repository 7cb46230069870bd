"""Coverage-guided fuzzing of every decoder: `python -m tests.fuzz.run --seconds 60`; needs atheris.

Each target runs in a process of its own, as libFuzzer ends the one that it runs in. An input that breaks an invariant
stays in the corpus folder as `crash-<hash>` and ends the run with code 1.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

EXECUTED = re.compile(rb"stat::number_of_executed_units: (\d+)")
MAX_INPUT_BYTES = 4096
INSTRUMENTED = ["fleet_protocol", "bundle_runtime", "broker_coordinator.mqtt.traffic", "cbor2", "safetensors"]
LAST_WORDS = 4000


def fuzz_here(name: str, seconds: int, corpus: Path) -> None:
    """Fuzz one target in this process; does not return."""
    import atheris  # noqa: PLC0415 - not needed by who only counts

    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415 - instrumented while imported

    target = TARGETS[name]
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    limits = [f"-max_total_time={seconds}", f"-max_len={MAX_INPUT_BYTES}", f"-artifact_prefix={corpus}/"]
    atheris.Setup([sys.argv[0], str(corpus), *limits, "-print_final_stats=1", "-verbosity=0"], target.check)
    atheris.Fuzz()


def fuzz_in_child(name: str, seconds: int, corpus: Path) -> int:
    """Fuzz one target; returns the number of inputs that were executed.

    Raises:
        SystemExit: an input broke the invariant, or the child could not run.
    """
    corpus.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.fuzz.run", "--only", name, "--seconds", str(seconds)]
    child = subprocess.run(
        [*command, "--corpus", str(corpus)],
        capture_output=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    executed = EXECUTED.search(child.stderr)
    if child.returncode or executed is None:
        sys.stderr.buffer.write(child.stdout[-LAST_WORDS:] + child.stderr[-LAST_WORDS:])
        raise SystemExit(f"fuzzing {name}: an input broke the invariant or the target could not run; see {corpus}")
    return int(executed[1])


def main() -> None:
    """Fuzz all targets, each for an equal share of the time, and print how many inputs they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("--targets", nargs="*", help="names; all by default")
    parser.add_argument("--corpus", type=Path, help="where inputs that reach new code are kept; by default nowhere")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        fuzz_here(options.only, options.seconds, options.corpus)
        return
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415 - a child must import it instrumented

    names = options.targets or list(TARGETS)
    with tempfile.TemporaryDirectory() as scratch:
        total = 0
        for name in names:
            folder = (options.corpus or Path(scratch)) / name
            executed = fuzz_in_child(name, max(1, options.seconds // len(names)), folder)
            print(f"{name:16} {executed:>12,} inputs", flush=True)
            total += executed
    print(f"{'all':16} {total:>12,} inputs, no finding")


if __name__ == "__main__":
    main()
