"""What an agent costs a device: the parts of `benchmarks.agent_footprint`."""
