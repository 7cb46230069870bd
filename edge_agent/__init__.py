"""The agent on the device: waits for samples, trains in a child process, sends signed sparse updates."""
