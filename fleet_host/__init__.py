"""What device and server do alike: configuration and key files, the broker's settings, back-off, log lines."""
