"""Learning without a coordinator: a device trains, tells its neighbours what changed, and mixes in what they told.

`peer` is one device's part, `mixing` how much neighbours move it. docs/gossip.md has the derivation.
"""

from edge_agent.training.gossip.mixing import MIXING_RULES
from edge_agent.training.gossip.peer import Heard, Peer, local_task

__all__ = ["Heard", "MIXING_RULES", "Peer", "local_task"]
