"""Makes a card with Raspberry Pi OS join a fleet at its first boot."""
