"""Versions that hide each single device: sums of clipped updates with noise (docs/privacy.md). Pure."""
