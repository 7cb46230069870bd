"""The main process of a worker's unit: says who it is on the connection that it was started for, and becomes the
program that the agent asks for (`edge_agent.worker.child`).

The agent closes the connection or kills the process when it wants no more of it. When the agent ends, so does the unit.
"""

import importlib
import os
import socket
import sys

from edge_agent.worker.child import HELLO, Program

STANDARD_INPUT = 0
MODULES = {
    Program.WARM_WORKER: "edge_agent.training.warm_worker",
    Program.PREDICTOR: "edge_agent.training.predictor",
    Program.LOOK: "edge_agent.training.look",
}
"""Each loads numpy and onnxruntime, so only the one that is asked for is imported."""


def main() -> None:
    """Serve the connection that is standard input and output."""
    connection = socket.socket(fileno=os.dup(STANDARD_INPUT))
    with connection:
        connection.sendall(HELLO.pack(os.getpid()))
        asked = connection.recv(1)
    if not asked:
        return
    try:
        program = Program(asked)
    except ValueError:
        sys.exit(f"the agent asks for {asked!r}, which is no program of this release; restart edge-agent")
    importlib.import_module(MODULES[program]).serve()


if __name__ == "__main__":
    main()
