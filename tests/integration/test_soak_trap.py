"""The soak's trap kills a process where it is told to, and nowhere else."""

import os
import signal

from tests.soak.places import Place
from tests.soak.trap import Trap, passing


def test_trap_kills_at_its_place_and_passage_only(tmp_path) -> None:
    trap = Trap(tmp_path / "trap")
    trap.arm(Place.TRAINING, 2)
    written = tmp_path / "written"

    def program(passages: int) -> int:
        if not (child := os.fork()):
            os.environ.update(trap.environment)
            passing(Place.BEFORE_COMMIT)
            for _ in range(passages):
                passing(Place.TRAINING, lambda: written.write_text("last act"))
            os._exit(7)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert (program(1), trap.has_sprung()) == (7, False)
    assert (program(1), trap.has_sprung()) == (-signal.SIGKILL, True), "the first passage was another process's"
    assert written.read_text() == "last act"
    assert program(9) == 7, "it has killed once"
    trap.arm(Place.TRAINING, 1)
    trap.disarm()
    assert (program(9), trap.has_sprung()) == (7, False)
