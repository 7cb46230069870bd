"""Checkpoints: the state of a simulation in a file, from which it goes on to the same end. docs/simulation.md."""
