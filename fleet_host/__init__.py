"""What device and server share: configuration and key files, broker settings, back-off, rate limits, log lines."""
