"""What a demo shows of a task that draws: how well each version does, and its pictures while the fleet runs."""
