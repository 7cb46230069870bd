"""From named readings to samples, alike on every device of a task. Pure."""
