"""The coordinator beside the broker: journals signed updates and makes versions out of them, asynchronously."""
