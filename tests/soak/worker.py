"""The training worker, as shipped, with traps in the middle of a round and at its end.

It is not shut in: a trap is a file that it would not be let to open (tests/integration/test_confinement.py).
"""

from edge_agent.training import warm_worker, worker
from edge_agent.worker.contract import Message, Progress, write_frame
from tests.soak.places import Place
from tests.soak.trap import passing


def _write_frame_watched(message: Message) -> bytes:
    if not isinstance(message, Progress):
        passing(Place.BEFORE_VERDICT)
    elif message.phase == "training":
        passing(Place.TRAINING)
    return write_frame(message)


if __name__ == "__main__":
    worker.shut_in = lambda _readable, _store: ""  # type: ignore[assignment]
    worker.write_frame = _write_frame_watched  # type: ignore[attr-defined]
    warm_worker.main()
