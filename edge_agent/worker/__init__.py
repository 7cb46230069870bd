"""The training child, seen from the agent: the messages between them, and the supervisor that enforces limits."""
