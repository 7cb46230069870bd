"""The training worker, as shipped, with traps in the middle of a round and at its end."""

from edge_agent.training import worker
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
    worker.write_frame = _write_frame_watched  # type: ignore[attr-defined]
    worker.main()
