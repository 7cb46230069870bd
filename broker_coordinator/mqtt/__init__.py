"""The connection to the broker, for thousands of updates a second."""
