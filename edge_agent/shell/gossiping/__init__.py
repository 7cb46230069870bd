"""Learning among neighbours: rosters, what neighbours tell and are told, and the state between rounds.

`edge_agent.core.gossip` decides; `task_gossip` has one task's, `gossip` all of them and their topics.
"""
