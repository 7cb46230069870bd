"""What a device does against its drift away from the fleet's model while it trains: docs/drift.md has the equations.

Two ways, a file each: SCAFFOLD's control variates, and FedProx with a coefficient that adapts. `steering` has what a
round is told by both, and what it leaves to the next one.
"""
