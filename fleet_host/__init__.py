"""What every machine of a fleet does alike: key files, TLS settings, back-off, log lines."""
