"""Sessions of split learning on a member's connection to the broker."""
