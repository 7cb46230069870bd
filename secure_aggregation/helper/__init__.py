"""A mask helper: what it checks, what it remembers, and what it answers. Imports neither device nor coordinator."""
