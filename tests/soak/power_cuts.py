"""The power fails at every byte of every step of a wake: `python -m tests.soak.power_cuts`; half an hour and more.

The last line is one JSON object.
"""

import json
import tempfile
from pathlib import Path

from tests.support.device_power_cuts import (
    check_cuts_of_agent_db,
    check_cuts_of_samples,
    steps_of_a_wake,
    steps_of_samples,
)
from tests.support.power_cuts import every_byte


def main() -> None:
    """Raises AssertionError where something is lost or there twice."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rounds = steps_of_a_wake(folder / "agent.db")
        of_rounds = sum(check_cuts_of_agent_db(step, folder, every_byte) for step in rounds)
        samples = steps_of_samples(folder / "samples.db")
        history = [[], *(step.states[1] for step in samples)]
        of_samples = check_cuts_of_samples(samples[-1], history, folder, every_byte)
    print(json.dumps({"steps": len(rounds), "cuts_of_agent_db": of_rounds, "cuts_of_samples_db": of_samples}))


if __name__ == "__main__":
    main()
