"""The worker on emulated arm64, against this machine."""
