"""What a device answers to queries about its samples: what its owner allows, and what that costs. Pure."""
