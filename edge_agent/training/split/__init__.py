"""A round of which a helper runs some blocks: the device's blocks, the steps under way, and what leaves the device."""
