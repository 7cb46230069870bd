"""Fleets whose devices see unlike data: what the shared model and devices' own models are worth to each device."""
