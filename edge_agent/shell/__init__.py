"""What an agent does: broker, databases, files and timers around the decisions of `edge_agent.core`."""
