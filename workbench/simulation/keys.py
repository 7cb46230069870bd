"""Keys and identities that follow from a seed: for simulation only."""

import hashlib

from edge_agent.shell.connection.identity import Identity
from fleet_protocol.keys import SigningKey

FLEET, SHARD = "simulated", "0"


def simulated_key(seed: int, name: str) -> SigningKey:
    """The key of whoever has this name."""
    return SigningKey(hashlib.sha256(f"{seed}/{name}".encode()).digest())


def simulated_identity(seed: int, name: str, coordinator_key: str) -> Identity:
    """A device with this name, which has pinned the coordinator's key."""
    return Identity(FLEET, SHARD, name, simulated_key(seed, name), coordinator_key)
