"""The agent on the device: wakes when something happens, trains in a child process, sends signed sparse updates."""
