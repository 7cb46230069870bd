"""Sessions of split learning: what a device and its helper say to each other, and how it passes the relay. Pure."""
