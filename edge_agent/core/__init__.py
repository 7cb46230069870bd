"""What an agent decides, as values and tables: no I/O, clock or randomness. The simulator runs the same."""
