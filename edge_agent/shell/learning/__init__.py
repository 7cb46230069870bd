"""When a round is trained and what comes of it."""
