"""The connection to the broker, fast enough for thousands of updates a second."""
