"""What the owner of a device types: one file for each verb of `edge-agent`, beside the agent that runs."""
