"""The helper: a member of the fleet that runs the middle of models for devices."""
