"""Learning without a coordinator: a device trains, tells its neighbours what changed, and mixes in what they told.

`peer` is one device's part, `mixing` how much neighbours move it, `round` what the training worker does of a round.
docs/gossip.md has the derivation.
"""

from edge_agent.training.gossip.mixing import MIXING_RULES
from edge_agent.training.gossip.peer import Peer, local_task
from edge_agent.training.gossip.round import end_round, gossip_round

__all__ = ["MIXING_RULES", "Peer", "end_round", "gossip_round", "local_task"]
