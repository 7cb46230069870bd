"""Learning without a coordinator: a device trains, tells its neighbours what changed, and mixes in what they told.

`peer` is one device's part, `mixing` how much neighbours move it. docs/gossip.md has the derivation.
"""

from edge_agent.training.gossip.mixing import MIXING_RULES, MixingRule
from edge_agent.training.gossip.peer import Heard, Peer, Told, local_task

__all__ = ["Heard", "MIXING_RULES", "MixingRule", "Peer", "Told", "local_task"]
