"""What hostile devices do to a fleet, and which rule withstands them."""
