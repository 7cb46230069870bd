"""What the agent and its warm worker say to each other over their Unix socket; each message has a fixed length.

A round is an `ORDER`, which carries the ends of two sockets for the round's own process: its standard input and output,
where `worker.contract` goes on, and its standard error. The answer is one `REPORT`, when that process has ended. In
between, `STOP` asks it to end after the step that it is in, and kills it where it does not. At the end of the socket
the warm worker ends, and with it what it has started.
"""

import struct
from typing import Final

ORDER: Final = struct.Struct("<d")
"""The share of the time that the round's process may run."""
REPORT: Final = struct.Struct("<i")
"""The exit code of the round's process."""
STOP: Final = bytes(ORDER.size)
"""No order has a share of 0."""
ASK_SECONDS: Final = 5.0
"""A round that is asked to stop is killed after this; one that has few steps may be in the middle of all of them."""
SOCKETS_OF_AN_ORDER = 2
