"""One simulated device: its power, connection, versions and rounds, and the agent that ties them together."""
