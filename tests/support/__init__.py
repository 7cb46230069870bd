"""What several tests stand on: a real broker, a real coordinator, a small device, a small task."""
