"""Split learning between a device and its helper: the relay beside the coordinator, and the helper itself."""
