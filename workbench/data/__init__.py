"""Samples for fleets that train on this machine, and how they are shared out."""
