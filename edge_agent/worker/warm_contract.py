"""What the agent and its warm worker say to each other over their Unix socket; each message has a fixed length.

A round is an `ORDER`, which carries the ends of two sockets for the round's own process: its standard input and output,
where `worker.contract` goes on, and its standard error. The answer is one `REPORT`, when that process has ended. In
between, `STOP` kills it. At the end of the socket the warm worker ends, and with it what it has started.
"""

import struct
from typing import Final

ORDER: Final = struct.Struct("<d")
"""The share of the time that the round's process may run."""
REPORT: Final = struct.Struct("<iQ")
"""The exit code of the round's process; the processor time so far of all rounds and the libraries, in milliseconds."""
STOP: Final = bytes(ORDER.size)
"""No order has a share of 0."""
SOCKETS_OF_AN_ORDER = 2
