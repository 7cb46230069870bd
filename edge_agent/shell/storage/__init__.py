"""What a device keeps on its card: the agent's database and the blob cache, and what damage to them costs."""
