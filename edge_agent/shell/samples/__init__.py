"""A device's samples, in one SQLite file that never leaves it."""
