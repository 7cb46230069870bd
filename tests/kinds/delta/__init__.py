"""A kind that makes versions, where a task says `versions_from = "delta"`, with a rule of its own."""
