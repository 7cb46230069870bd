"""Passes frames between the two ends of sessions, and decides who may have one."""
