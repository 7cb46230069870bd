"""Queries about a device's samples: heard, answered from the store, and accounted for."""
