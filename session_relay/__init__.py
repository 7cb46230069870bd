"""Split learning over the broker: the relay between devices and helpers, and the helper's program."""
