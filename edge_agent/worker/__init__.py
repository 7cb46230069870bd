"""The training child as its parent sees it: the contract, and who holds it to its limits."""
