"""Rounds of a simulated fleet on a Ray cluster: several at once, and the same bits as in one process."""
