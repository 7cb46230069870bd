"""Split learning between devices and their helpers: the relay, and the helper (docs/split-learning.md)."""
