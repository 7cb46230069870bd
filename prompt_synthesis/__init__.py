"""Beside the coordinator: synthesises training data from devices' prompts, trains on it, and publishes the result."""
